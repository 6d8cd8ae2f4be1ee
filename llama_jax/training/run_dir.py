"""The run directory: is it ours, what does it hold, may this config go on in it."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import jax

from llama_jax.config import Config, from_dict, to_dict
from llama_jax.config.compare import changes, check_same_model
from llama_jax.data.corpus import open_corpus
from llama_jax.data.mixture import Mixture
from llama_jax.data.position import DataPosition
from llama_jax.errors import ConfigError, DataError, LlamaError
from llama_jax.files.atomic import write_atomic
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.tokenizer.base import Tokenizer

CONFIG = "config.json"
POSITION = "position"
"""Key of a checkpoint's progress under which it holds what was read."""


def open_run(config: Config, workdir: Path) -> tuple[Checkpoints, int, list[str]]:
    """(checkpoints, step to go on from, what to tell the user); a new folder gets its config.json and is ours.

    Raises ConfigError where the folder is another's, cannot be written, or holds another model.
    """
    if jax.process_index() == 0:
        check_folder(workdir)
        if not (workdir / CONFIG).exists():
            record(config, workdir)
    checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint)
    try:
        return checkpoints, *beginning(config, workdir, checkpoints)
    except BaseException:
        checkpoints.close()
        raise


def beginning(config: Config, workdir: Path, checkpoints: Checkpoints) -> tuple[int, list[str]]:
    """(step to go on from, what to tell the user); raises ConfigError and DataError where the run cannot go on."""
    if checkpoints.latest() == 0:
        raise ConfigError(f"{workdir} holds converted weights, not a run; train from them with --init_from {workdir} and another "
                          "--workdir.")
    start = checkpoints.latest() or 0
    notes = []
    if start:
        saved = checkpoints.config(start)
        check_same_model(saved, config)
        if start > config.training.num_steps:
            raise ConfigError(f"{workdir} has already trained {start} steps, more than training.num_steps "
                              f"{config.training.num_steps}.")
        notes.append(f"resuming {workdir} at step {start}")
        notes += [f"changed since the checkpoint: {line}" for line in changes(saved, config)]
    return start, notes


def position_at(checkpoints: Checkpoints, step: int, workdir: Path, tokenizer: Tokenizer | None) -> DataPosition:
    """What the run had read when it saved `step` (0: nothing).

    Of a checkpoint that an earlier version wrote it is worked out from the config in it: since the run began all its steps
    had the same rows. Raises DataError where a source that was read then is gone.
    """
    if step == 0:
        return DataPosition()
    if recorded := checkpoints.progress(step).get(POSITION):
        try:
            return from_dict(DataPosition, recorded)
        except ConfigError as error:
            raise DataError(f"{checkpoints.folder / str(step)} says what was read in another way than this version ({error}); "
                            "remove it to go on from an earlier one.") from None
    saved = checkpoints.config(step)
    read = replace(saved.data, tokenizer="", heldout=())
    try:
        corpus = open_corpus(read, saved.model.vocab_size, workdir=workdir, given=tokenizer, padded=bool(saved.init_from))
    except DataError as error:
        raise DataError(f"the checkpoint of step {step}, of an earlier version, does not say what was read, and its sources "
                        f"cannot be opened to work it out: {error}") from None
    return Mixture(corpus.sources, corpus.shares, seed=saved.training.seed).position(step * saved.training.batch_size)


def record(config: Config, workdir: Path) -> None:
    """Write config.json, once all that the config names is known to be good."""
    if jax.process_index() == 0:
        write_atomic(workdir / CONFIG, (json.dumps(to_dict(config), indent=1) + "\n").encode())


def check_folder(workdir: Path) -> None:
    """Raise ConfigError unless `workdir` is new, empty or a run's, and can be written."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
        holds_files = any(workdir.iterdir())
    except OSError as error:
        raise ConfigError(f"cannot write the run directory {workdir}: {error.strerror}; name another with "
                          "--workdir.") from None
    if not holds_files:
        return
    try:
        from_dict(Config, json.loads((workdir / CONFIG).read_text()))
    except (OSError, ValueError, LlamaError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{workdir} is not empty and not a run directory ({CONFIG}: {reason}); name another with "
                          "--workdir.") from None
