"""Train: `python train.py --config configs/tiny.py [--workdir DIR] [--any.field VALUE]...`; `--help` lists the fields."""

import signal
import sys

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # during imports, until the next but one line
    from llama_jax.interruption import watch_stop_signals

    watch_stop_signals()
    from llama_jax.__main__ import run_command

    sys.exit(run_command("train", sys.argv[1:], prog="python train.py"))
