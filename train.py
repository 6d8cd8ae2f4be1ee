"""Train: `python train.py --config configs/tiny.py [--workdir DIR] [--any.field VALUE]...`; `--help` lists the fields."""

import signal
import sys

if __name__ == "__main__":
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # until watch_stop_signals has been imported
    from llama_jax.interruption import watch_stop_signals

    watch_stop_signals()
    from llama_jax.__main__ import run_command

    sys.exit(run_command("train", sys.argv[1:], prog="python train.py"))
