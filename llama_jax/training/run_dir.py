"""The run directory: checks that a run may use it, and finds the step and data position to resume from."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import jax

from llama_jax.config import Config, config_from_dict, from_dict, to_dict
from llama_jax.config.compare import changes, check_same_model
from llama_jax.data.corpus import open_corpus
from llama_jax.data.position import DataPosition
from llama_jax.errors import ConfigError, DamagedError, DataError, LlamaError
from llama_jax.files.atomic import write_atomic
from llama_jax.files.lock import LOCK_FILE
from llama_jax.formats.checkpoints import Checkpoints, check_step
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.training.step import TrainState

RUN_CONFIG = "config.json"
"""File of a run directory that holds the run's Config."""

DATA_POSITION = "position"
"""Key of a checkpoint's progress that holds the data position, i.e. what has been read of every source."""

EVALUATION_DUE = "evaluation_due"
"""Key of a checkpoint's progress: whether a stop request cut off the evaluation after its step."""


def open_run_dir(
    config: Config, workdir: Path, *, abstract_state: TrainState | None = None
) -> tuple[Checkpoints, int, list[str], TrainState | None]:
    """Open `workdir` as the directory of a run; a new or empty folder becomes one.

    The run resumes from its newest checkpoint that is whole. A newer one that is damaged is renamed STEP.damaged.

    Args:
        config: the run's config.
        workdir: the run directory.
        abstract_state: ShapeDtypeStructs, with shardings, of the state to restore; None: only the config and what the loop
            counts are read.

    Returns:
        (its checkpoints, the step to resume from or 0, lines for the user, the state of that step or None).

    Raises:
        ConfigError: the folder holds something else, cannot be written, or its run has another model or more steps.
        DataError: all its checkpoints are damaged, the newest whole one has the number of another step or cannot be read now.
    """
    if jax.process_index() == 0:
        _check_run_dir(workdir)
        if not (workdir / RUN_CONFIG).exists():
            write_run_config(config, workdir)
    checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint)
    try:
        resumed = _resume_point(config, workdir, checkpoints=checkpoints, abstract_state=abstract_state)
    except BaseException:
        checkpoints.close()
        raise
    return checkpoints, *resumed


def write_run_config(config: Config, workdir: Path) -> None:
    """Write config.json into the run directory; a resumed run does so only after everything in the config has been checked."""
    content = (json.dumps(to_dict(config), indent=1) + "\n").encode()
    file = workdir / RUN_CONFIG
    if jax.process_index() == 0 and not (file.exists() and file.read_bytes() == content):
        write_atomic(file, content)


def restore_data_position(checkpoints: Checkpoints, step: int, *, workdir: Path, tokenizer: Tokenizer | None) -> DataPosition:
    """Restore the data position, i.e. what the run had read of every source, from the checkpoint of `step` (0: nothing read).

    Checkpoints of early versions do not record it. It is then computed from the config saved with them, since all steps before
    it had the same batch size and sources.

    Raises:
        DataError: a source that was read then is gone, or the record is of another version.
    """
    if step == 0:
        return DataPosition()
    if recorded := checkpoints.progress(step).get(DATA_POSITION):
        try:
            return from_dict(DataPosition, recorded)
        except ConfigError as error:
            raise DataError(f"{checkpoints.folder / str(step)} says what was read in another way than this version ({error}); "
                            "remove it to go on from an earlier one.") from None
    saved = checkpoints.config(step)
    training_data = replace(saved.data, tokenizer="", heldout=())
    try:
        corpus = open_corpus(training_data, saved.model.vocab_size, workdir=workdir, given=tokenizer,
                             padded=bool(saved.init_from))
    except DataError as error:
        raise DataError(f"the checkpoint of step {step}, of an earlier version, does not say what was read, and its sources "
                        f"cannot be opened to work it out: {error}") from None
    return corpus.mixture(seed=saved.training.seed).position(step * saved.training.batch_size)


def _resume_point(
    config: Config, workdir: Path, *, checkpoints: Checkpoints, abstract_state: TrainState | None
) -> tuple[int, list[str], TrainState | None]:
    """(step to resume from or 0, lines for the user, its state); raises what `open_run_dir` raises."""
    damaged: dict[int, DamagedError] = {}
    for step in reversed(checkpoints.steps()):
        try:
            changed, state = _open_step(config, workdir, checkpoints=checkpoints, step=step, abstract_state=abstract_state)
        except DamagedError as error:
            damaged[step] = error
            continue
        notes = [f"{error} It is set aside as {checkpoints.set_aside(number)}, and its steps are trained again."
                 for number, error in damaged.items()]
        return step, [*notes, f"resuming {workdir} at step {step}", *changed], state
    if damaged:  # none is renamed: there is nothing to go on from
        others = f" The {len(damaged) - 1} earlier one(s) are damaged too." if len(damaged) > 1 else ""
        raise DataError(f"{next(iter(damaged.values()))}{others}")
    return 0, [], None


def _open_step(
    config: Config, workdir: Path, *, checkpoints: Checkpoints, step: int, abstract_state: TrainState | None
) -> tuple[list[str], TrainState | None]:
    """Read and check all of a checkpoint: (lines on what changed since, its state)."""
    if step == 0:
        raise ConfigError(f"{workdir} holds converted weights, not a run; train from them with --init_from {workdir} and another "
                          "--workdir.")
    saved = checkpoints.config(step)
    checkpoints.progress(step)
    check_same_model(saved, config)
    if step > config.training.num_steps:
        raise ConfigError(f"{workdir} has already trained {step} steps, more than training.num_steps "
                          f"{config.training.num_steps}.")
    state = None
    if abstract_state is not None:
        state = checkpoints.restore(step, abstract_state)
        check_step(checkpoints.folder / str(step), int(state.step))
    return [f"changed since the checkpoint: {line}" for line in changes(saved, config)], state


def _check_run_dir(workdir: Path) -> None:
    """Raise ConfigError unless `workdir` can be written and is new, empty or a run directory."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
        holds_files = any(file.name != LOCK_FILE for file in workdir.iterdir())
    except OSError as error:
        raise ConfigError(f"cannot write the run directory {workdir}: {error.strerror}; name another with "
                          "--workdir.") from None
    if not holds_files:
        return
    try:
        config_from_dict(json.loads((workdir / RUN_CONFIG).read_text()))
    except (OSError, ValueError, LlamaError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{workdir} is not empty and not a run directory ({RUN_CONFIG}: {reason}); name another with "
                          "--workdir.") from None
