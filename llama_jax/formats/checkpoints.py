"""The checkpoints of a training run: state, config and progress of a step, saved by orbax in the background."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from llama_jax.config import CheckpointConfig, Config, config_from_dict, to_dict
from llama_jax.errors import DataError, LlamaError

_PROGRESS_ITEM = "progress"
"""The item of a checkpoint that holds the training loop's own counters as JSON."""


class Checkpoints:
    """The checkpoints of one run directory, `DIR/checkpoints/<step>`.

    Without a CheckpointConfig they can only be read. Every method raises DataError where a checkpoint is damaged.
    """

    def __init__(self, folder: Path, config: CheckpointConfig | None = None):
        self.folder = folder
        with _orbax_warnings_off():  # it warns of read_only
            options = ocp.CheckpointManagerOptions(
                max_to_keep=config.keep if config else None,
                keep_period=(config.keep_every or None) if config else None,
                create=config is not None,
                read_only=config is None,
                enable_async_checkpointing=config is not None,
            )
            self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def latest(self) -> int | None:
        """The newest finished step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, *, config: Config, progress: dict[str, Any] | None = None) -> None:
        """Begin to save a step, if it is not the latest; arrays are copied before this returns, files are written later."""
        if step == self.latest():
            return
        items = {"state": ocp.args.StandardSave(state), "config": ocp.args.JsonSave(to_dict(config))}
        if progress is not None:
            items[_PROGRESS_ITEM] = ocp.args.JsonSave(progress)
        self._manager.save(step, args=ocp.args.Composite(**items))

    def progress(self, step: int) -> dict[str, Any]:
        """The `progress` saved with a step; empty where an earlier version or `convert` wrote the checkpoint."""
        if not (self.folder / str(step) / _PROGRESS_ITEM).exists():
            return {}
        with checkpoint_errors(self.folder / str(step)):
            args = ocp.args.Composite(**{_PROGRESS_ITEM: ocp.args.JsonRestore()})
            return self._manager.restore(step, args=args)[_PROGRESS_ITEM]

    def config(self, step: int) -> Config:
        """The config saved with a step, with every default filled in."""
        with checkpoint_errors(self.folder / str(step)):
            saved = self._manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))
            return config_from_dict(saved["config"])

    def restore(self, step: int, abstract_state: Any) -> Any:
        """The state of a step, laid out as `abstract_state` (ShapeDtypeStructs with shardings) says."""
        with checkpoint_errors(self.folder / str(step)):
            args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
            return self._manager.restore(step, args=args)["state"]

    def restore_params(self, step: int, abstract_params: Any) -> Any:
        """The parameters of a step, laid out as `abstract_params` says; the rest of the state is not read."""
        with checkpoint_errors(self.folder / str(step)), ocp.PyTreeCheckpointer() as checkpointer:
            item = {"params": abstract_params}
            restore_args = ocp.checkpoint_utils.construct_restore_args(item)
            args = ocp.args.PyTreeRestore(item=item, restore_args=restore_args, partial_restore=True)
            return checkpointer.restore((self.folder / str(step) / "state").absolute(), args=args)["params"]

    def wait(self) -> None:
        """Wait until what was begun to be saved is on the disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait until everything is saved."""
        self._manager.close()


@contextmanager
def _orbax_warnings_off() -> Iterator[None]:
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def checkpoint_errors(folder: Path) -> Iterator[None]:
    """Turn what orbax and tensorstore raise about the files of a checkpoint into a DataError that names `folder`."""
    try:
        yield
    except LlamaError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DataError(f"checkpoint {folder} cannot be read ({reason[:300]}); remove it to go on from an earlier "
                        "one.") from error


def abstract_arrays(tree: Any, shardings: Any) -> Any:
    """ShapeDtypeStructs of the arrays in `tree`, each with the sharding in its place in `shardings`."""
    return jax.tree.map(lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree, shardings)
