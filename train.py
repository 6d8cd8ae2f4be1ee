"""Train: `python train.py --config configs/tiny.py [--workdir DIR] [--any.field VALUE]...`; `--help` lists the fields."""

import sys

from llama_jax.cli.train import main
from llama_jax.evaluation.in_training import evaluators

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], evaluators))
