"""Evaluate: `python eval.py --checkpoint DIR --tasks common_sense [--data_dir DIR]`; `--help` lists the rest."""

import sys

from llama_jax.interruption import watch_stop_signals


def main(arguments: list[str]) -> int:
    """Evaluate or compare, and return the exit code."""
    from llama_jax.__main__ import run_command

    return run_command("eval", arguments, prog="eval.py")


if __name__ == "__main__":
    watch_stop_signals()  # before the imports that take long
    sys.exit(main(sys.argv[1:]))
