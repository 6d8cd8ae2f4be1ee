"""`llama_jax train` and train.py at work."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from llama_jax.cli.options import TrainOptions
from llama_jax.config.duration import parse_duration
from llama_jax.errors import ConfigError
from llama_jax.interruption import PROCESS_START, catch_signals_again, end_when_stopped, noted_stops, stop_at


def run_train(asked: TrainOptions) -> None:
    """Train, or go on training, in the run directory.

    Raises:
        SystemExit: the run was asked to stop, and saved; the code is `stop_exit_code`.
    """
    if not 0 <= asked.stop_exit_code <= 255:
        raise ConfigError(f"stop_exit_code must lie between 0 and 255, got {asked.stop_exit_code}.")
    if asked.stop_after:
        stop_at(PROCESS_START + parse_duration(asked.stop_after, where="stop_after"), f"--stop_after {asked.stop_after}")
    end_when_stopped("the same command resumes", code=asked.stop_exit_code)

    from llama_jax.files.lock import only_writer
    from llama_jax.files.remote import is_remote, mirrored_run
    from llama_jax.parallel.distributed import (
        announces_preemption,
        is_first_process,
        is_one_of_several,
        join_processes,
    )
    from llama_jax.parallel.xla_flags import set_xla_flags

    set_xla_flags()  # XLA reads them when jax starts
    join_processes()
    if announces_preemption():
        noted_stops(forward=True)  # one process does not end alone
    else:
        catch_signals_again()
    if is_remote(asked.workdir) and is_one_of_several():
        raise ConfigError(f"runs of several processes need one folder that all of them see, and {asked.workdir} has a copy on "
                          "each machine; mount the bucket and name the folder (docs/RUNNING.md).")
    with ExitStack() as opened:
        workdir = run_directory(asked)
        if is_remote(asked.workdir):
            workdir = opened.enter_context(mirrored_run(asked.workdir, retry_seconds=asked.fields.checkpoint.retry_seconds))
        if is_first_process():  # locked before the devices are taken, which a second process on this host could not have
            opened.enter_context(only_writer(workdir, option="--workdir"))
        state = _train(asked, workdir)
    if noted_stops() and int(state.step) < asked.fields.training.num_steps:
        sys.exit(asked.stop_exit_code)


def _train(asked: TrainOptions, workdir: Path) -> Any:
    """Train, and return the state that `fit` returns."""
    import jax

    from llama_jax.evaluation.in_training import evaluators
    from llama_jax.parallel.malloc import keep_freed_memory
    from llama_jax.training.loop import fit

    if jax.default_backend() == "cpu":
        keep_freed_memory()
    return fit(asked.fields, workdir, evaluators=evaluators(asked.fields, workdir))


def run_directory(asked: TrainOptions) -> Path:
    """Where the run lives: --workdir, else runs/<config name>."""
    return Path(asked.workdir) if asked.workdir else Path("runs") / asked.fields.name
