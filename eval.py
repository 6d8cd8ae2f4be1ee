"""Evaluate: `python eval.py --checkpoint DIR --tasks common_sense [--data_dir DIR]`; `--help` lists the rest."""

import signal
import sys


def main(arguments: list[str]) -> int:
    """Evaluate or compare, and return the exit code."""
    from llama_jax.__main__ import run_command

    return run_command("eval", arguments, prog="eval.py")


if __name__ == "__main__":
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # until watch_stop_signals has been imported
    from llama_jax.interruption import watch_stop_signals

    watch_stop_signals()
    sys.exit(main(sys.argv[1:]))
