"""Train: `python train.py --config configs/tiny.py [--workdir DIR] [--any.field VALUE]...`; `--help` lists the fields."""

import sys

from llama_jax.interruption import watch_stop_signals

if __name__ == "__main__":
    watch_stop_signals()  # before the imports that take long
    from llama_jax.__main__ import run_command

    sys.exit(run_command("train", sys.argv[1:], prog="python train.py"))
