"""Orbax: state, resolved config and progress of a step, saved in the background, restored into any sharding."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from llama_jax.config import CheckpointConfig, Config, from_dict, to_dict
from llama_jax.errors import DataError, LlamaError

PROGRESS = "progress"
"""Item of a checkpoint that holds what the training loop itself must not forget, as JSON."""


class Checkpoints:
    """The checkpoints of one run directory, `DIR/checkpoints/<step>`."""

    def __init__(self, folder: Path, config: CheckpointConfig | None = None):
        self.folder = folder
        with _without_warnings():  # of read_only, which is what is wanted
            options = ocp.CheckpointManagerOptions(
                max_to_keep=config.keep if config else None,
                keep_period=(config.keep_every or None) if config else None,
                create=config is not None,
                read_only=config is None,
                enable_async_checkpointing=config is not None,
            )
            self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def latest(self) -> int | None:
        """The newest finished step."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, config: Config, *, progress: dict[str, Any] | None = None) -> None:
        """Begin to save; arrays are copied before this returns, files are finished in the background."""
        if step == self.latest():
            return
        items = {"state": ocp.args.StandardSave(state), "config": ocp.args.JsonSave(to_dict(config))}
        if progress is not None:
            items[PROGRESS] = ocp.args.JsonSave(progress)
        self._manager.save(step, args=ocp.args.Composite(**items))

    def progress(self, step: int) -> dict[str, Any]:
        """What the training loop saved beside the state of a step; empty where an earlier version or `convert` saved it."""
        if not (self.folder / str(step) / PROGRESS).exists():
            return {}
        with readable(self.folder / str(step)):
            return self._manager.restore(step, args=ocp.args.Composite(**{PROGRESS: ocp.args.JsonRestore()}))[PROGRESS]

    def config(self, step: int) -> Config:
        """The resolved config saved with a step."""
        with readable(self.folder / str(step)):
            saved = self._manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))
            return from_dict(Config, saved["config"])

    def restore(self, step: int, abstract_state: Any) -> Any:
        """The state of a step, laid out as `abstract_state` (ShapeDtypeStructs with shardings) says."""
        with readable(self.folder / str(step)):
            args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
            return self._manager.restore(step, args=args)["state"]

    def restore_params(self, step: int, abstract_params: Any) -> Any:
        """The parameters of a step alone, laid out as `abstract_params` says; nothing else is read."""
        with readable(self.folder / str(step)), ocp.PyTreeCheckpointer() as checkpointer:
            item = {"params": abstract_params}
            restore_args = ocp.checkpoint_utils.construct_restore_args(item)
            args = ocp.args.PyTreeRestore(item=item, restore_args=restore_args, partial_restore=True)
            return checkpointer.restore((self.folder / str(step) / "state").absolute(), args=args)["params"]

    def close(self) -> None:
        """Wait for what is being saved."""
        self._manager.close()


@contextmanager
def _without_warnings() -> Iterator[None]:
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class readable:
    """Turns what orbax and tensorstore raise about damaged files into one sentence."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, traceback) -> None:
        if isinstance(error, Exception) and not isinstance(error, LlamaError):
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise DataError(f"checkpoint {self.folder} cannot be read ({reason[:300]}); remove it to go on from an "
                            "earlier one.") from error


def abstract(state: Any, shardings: Any) -> Any:
    """ShapeDtypeStructs of `state` placed by `shardings`."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)
