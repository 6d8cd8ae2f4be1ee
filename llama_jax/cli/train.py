"""`llama_jax train` and train.py at work."""

from pathlib import Path

from llama_jax.cli.options import TrainOptions


def run_train(asked: TrainOptions) -> None:
    """Train, or go on training, in the run directory."""
    from llama_jax.parallel.distributed import join_processes
    from llama_jax.parallel.xla_flags import set_xla_flags

    set_xla_flags()  # XLA reads them when jax starts
    join_processes()
    import jax

    from llama_jax.evaluation.in_training import evaluators
    from llama_jax.parallel.malloc import keep_freed_memory
    from llama_jax.training.loop import fit

    if jax.default_backend() == "cpu":
        keep_freed_memory()
    config, workdir = asked.fields, run_directory(asked)
    fit(config, workdir, evaluators=evaluators(config, workdir))


def run_directory(asked: TrainOptions) -> Path:
    """Where the run lives: --workdir, else runs/<config name>."""
    return Path(asked.workdir) if asked.workdir else Path("runs") / asked.fields.name
