"""The checkpoints of a training run: state, config, progress and checksums of a step, saved by orbax in the background."""

import errno
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from llama_jax.config import CheckpointConfig, Config, Verification, config_from_dict, to_dict
from llama_jax.errors import ConfigError, DamagedError, DataError, LlamaError, StorageError
from llama_jax.files.storage import STORAGE_ERRORS, reason_of
from llama_jax.formats.quiet_reads import quiet_reads, quiet_saves
from llama_jax.formats.sums import SUMS_ITEM, CheckpointSums, named_arrays, sums_of
from llama_jax.formats.unfinished import require_arrays

LOG = logging.getLogger(__name__)

_PROGRESS_ITEM = "progress"
"""The item of a checkpoint that holds the training loop's own counters as JSON."""

_PASSING_ERRORS = ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED")
"""Errors of tensorstore that say nothing about what lies on the disk."""


class Checkpoints:
    """The checkpoints of one run directory, `DIR/checkpoints/<step>`.

    Without a CheckpointConfig they can only be read. Every method raises DamagedError where a checkpoint is damaged or
    incomplete, and DataError where it cannot be read for another reason.
    """

    def __init__(self, folder: Path, config: CheckpointConfig | None = None, *, verify: Verification = "full"):
        self.folder = folder
        self.verify = config.verify if config else verify
        self._begun, self._num_arrays = 0, 0  # of the save under way
        if config:
            quiet_saves()
        with _orbax_warnings_off():  # it warns of read_only
            options = ocp.CheckpointManagerOptions(
                max_to_keep=config.keep if config else None,
                keep_period=(config.keep_every or None) if config else None,
                create=config is not None,
                read_only=config is None,
                enable_async_checkpointing=config is not None,
                # else a folder that cannot be made shows after five minutes
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False,
                                               post_finalization_callback=self._require_whole if config else None),
            )
            self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def latest(self) -> int | None:
        """The newest finished step, or None."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """All finished steps, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, *, config: Config, progress: dict[str, Any] | None = None) -> None:
        """Begin to save a step, if it is not the latest; arrays are copied before this returns, files are written later."""
        if step == self.latest():
            return
        values = {"config": to_dict(config)}
        if progress is not None:
            values[_PROGRESS_ITEM] = progress
        # checksums of what the devices hold, taken before anything is copied; they lie in the checkpoint, which orbax commits
        # as a whole
        values |= {SUMS_ITEM: sums_of(step, state, items=values).to_json()}
        items = {name: ocp.args.JsonSave(value) for name, value in values.items()}
        self._manager.wait_until_finished()  # the save before this one, whose arrays are counted at its end
        self._begun, self._num_arrays = step, len(jax.tree.leaves(state))
        self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), **items))

    def _require_whole(self) -> None:
        require_arrays(self.folder, self._begun, number=self._num_arrays)

    def is_saving(self) -> bool:
        """Whether the save that was begun last is under way."""
        return self._manager.is_saving_in_progress()

    def finish_saving(self) -> Exception | None:
        """Wait until the save under way is finished; returns what made it fail, or None."""
        try:
            self._manager.wait_until_finished()
        except jax.errors.JaxRuntimeError:
            raise
        except STORAGE_ERRORS as error:
            with suppress(OSError):
                self._manager.reload()  # orbax forgets the steps that it was going to remove
            return error
        return None

    def progress(self, step: int) -> dict[str, Any]:
        """The `progress` saved with a step; empty where an earlier version or `convert` wrote the checkpoint."""
        with checkpoint_errors(self.folder / str(step)):
            sums = self.sums(step)
            expected = sums and _PROGRESS_ITEM in sums.items
            if not expected and not (self.folder / str(step) / _PROGRESS_ITEM).exists():
                return {}
            return self._json_item(step, _PROGRESS_ITEM, sums=sums)

    def config(self, step: int) -> Config:
        """The config saved with a step, with every default filled in."""
        with checkpoint_errors(self.folder / str(step)):
            values = self._json_item(step, "config", sums=self.sums(step))
            return config_from_dict(values)

    def sums(self, step: int) -> CheckpointSums | None:
        """The checksums saved with a step, or None for a checkpoint of an earlier version or where nothing is verified.

        Raises DataError where the folder is named after another step than was saved in it.
        """
        if self.verify == "never":
            return None
        folder = self.folder / str(step)
        with checkpoint_errors(folder):
            if not (folder / SUMS_ITEM).exists():
                listed = json.loads((folder / "_CHECKPOINT_METADATA").read_bytes())["item_handlers"]
                if SUMS_ITEM in listed:
                    raise DamagedError("its checksums are missing")
                return None
            sums = CheckpointSums.from_json(self._restore_json(step, SUMS_ITEM))
        check_step(folder, sums.step)
        return sums

    def restore(self, step: int, abstract_state: Any) -> Any:
        """The state of a step, laid out as `abstract_state` (ShapeDtypeStructs with shardings) says."""
        def read(stored: Any) -> Any:
            args = ocp.args.Composite(state=ocp.args.StandardRestore(stored))
            return self._manager.restore(step, args=args)["state"]

        with checkpoint_errors(self.folder / str(step)):
            _check_names(self.sums(step), abstract_state, folder=self.folder / str(step))
        return self._verified(step, abstract_state, read=read)

    def restore_params(self, step: int, abstract_params: Any) -> Any:
        """The parameters of a step, laid out as `abstract_params` says; the rest of the state is not read."""
        def read(stored: Any) -> Any:
            with ocp.PyTreeCheckpointer() as checkpointer:
                restore_args = ocp.checkpoint_utils.construct_restore_args(stored)
                args = ocp.args.PyTreeRestore(item=stored, restore_args=restore_args, partial_restore=True)
                return checkpointer.restore((self.folder / str(step) / "state").absolute(), args=args)

        return self._verified(step, {"params": abstract_params}, read=read)["params"]

    def _verified(self, step: int, abstract: Any, *, read: Callable[[Any], Any]) -> Any:
        """What `read` gives for ShapeDtypeStructs, compared with the checksums, in the dtypes of `abstract`."""
        folder = self.folder / str(step)
        with checkpoint_errors(folder):
            sums = self.sums(step)
            stored = _as_stored(abstract, sums) if sums else abstract  # a cast would change the bits
        with _errors_of_all(), checkpoint_errors(folder), quiet_reads():
            tree = read(stored)
        with checkpoint_errors(folder):
            if sums:
                sums.check_arrays(tree, self.verify)
            elif self.verify != "never":
                warn_of_no_sums(folder)
        leaves, structure = jax.tree.flatten(tree)
        del tree
        for n, wanted in enumerate(jax.tree.leaves(abstract)):
            if leaves[n].dtype != wanted.dtype:
                leaves[n] = leaves[n].astype(wanted.dtype)  # one after another: memory holds one of them twice
        return structure.unflatten(leaves)

    def _json_item(self, step: int, name: str, *, sums: CheckpointSums | None) -> Any:
        value = self._restore_json(step, name)
        if sums:
            sums.check_item(name, value)
        return value

    def _restore_json(self, step: int, name: str) -> Any:
        return self._manager.restore(step, args=ocp.args.Composite(**{name: ocp.args.JsonRestore()}))[name]

    def set_aside(self, step: int) -> Path:
        """Rename the folder of a damaged step, so that nothing reads or replaces it, and return the new one."""
        folder = self.folder / str(step)
        names = [f"{step}.damaged", *(f"{step}.damaged-{n}" for n in range(2, 1000))]
        target = next(self.folder / name for name in names if not (self.folder / name).exists())
        if jax.process_index() == 0:
            folder.rename(target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"set aside {step}")
        self._manager.reload()
        return target

    def close(self) -> None:
        """Wait until everything is saved; raises StorageError where that fails."""
        try:
            self._manager.close()
        except jax.errors.JaxRuntimeError:
            raise
        except STORAGE_ERRORS as error:
            raise StorageError(f"a checkpoint in {self.folder} could not be saved ({reason_of(error)}).",
                               reason_of(error)) from None


def _as_stored(abstract: Any, sums: CheckpointSums) -> Any:
    """ShapeDtypeStructs of `abstract` in the dtypes that the checksums say were saved."""
    leaves, tree = jax.tree.flatten(abstract)
    saved = [sums.arrays.get(name) for name in named_arrays(abstract)]
    return tree.unflatten(jax.ShapeDtypeStruct(leaf.shape, array.dtype if array else leaf.dtype, sharding=leaf.sharding)
                          for leaf, array in zip(leaves, saved, strict=True))


def _check_names(sums: CheckpointSums | None, abstract: Any, *, folder: Path) -> None:
    """Raise DataError where a checkpoint was saved of a state with other arrays than are asked for: it is not damaged."""
    if sums and (other := sorted(sums.arrays.keys() ^ named_arrays(abstract).keys())):
        raise DataError(f"checkpoint {folder} holds another training state than this run's: {', '.join(other[:3])} "
                        f"{'is' if len(other) == 1 else 'are'} in one of the two alone; resume it with the options and the "
                        "version that it was saved with.")


def warn_of_no_sums(folder: Path) -> None:
    """Log that a checkpoint cannot be verified."""
    LOG.warning("checkpoint %s was saved by an earlier version, without checksums: damage to it can pass unnoticed.", folder)


def check_step(folder: Path, saved: int) -> None:
    """Raise DataError unless a checkpoint's folder has the number of the step that was saved in it."""
    if int(folder.name) != saved:
        raise DataError(f"checkpoint {folder} holds step {saved}, not {folder.name}: it was renamed or copied; give it its "
                        "number again, or move it away.")


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
    """Turn what orbax and tensorstore raise about the files of a checkpoint into an error that names `folder`.

    Raises DamagedError where the files are not what was saved, and DataError where they could not be read now: for want of
    permission, memory or file handles, or because the storage failed.
    """
    try:
        yield
    except DamagedError as error:
        if str(folder) in str(error):  # it was named within
            raise
        raise DamagedError(f"checkpoint {folder} cannot be read ({error}); remove it to go on from an earlier one.") from None
    except ConfigError as error:
        raise ConfigError(f"the config of checkpoint {folder} is not one of this version: {error}") from None
    except LlamaError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0][:300]
        if _may_pass(error):
            raise DataError(f"checkpoint {folder} cannot be read now ({reason}); nothing says that it is damaged.") from error
        raise DamagedError(f"checkpoint {folder} cannot be read ({reason}); remove it to go on from an earlier one.") from error


def _may_pass(error: Exception) -> bool:
    """Whether an error speaks of the machine rather than of the files."""
    if isinstance(error, OSError):
        return error.errno not in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
    return isinstance(error, MemoryError | jax.errors.JaxRuntimeError) or any(word in str(error) for word in _PASSING_ERRORS)


@contextmanager
def _errors_of_all() -> Iterator[None]:
    """Raise in every process of a run where one of them raised in the block, so that none waits for it."""
    failed: Exception | None = None
    try:
        yield
    except LlamaError as error:
        failed = error
    if jax.process_count() > 1 and multihost_utils.process_allgather(np.array(failed is not None)).any() and failed is None:
        raise DamagedError("another process could not read its part")
    if failed is not None:
        raise failed


def abstract_arrays(tree: Any, shardings: Any) -> Any:
    """ShapeDtypeStructs of the arrays in `tree`, each with the sharding in its place in `shardings`."""
    return jax.tree.map(lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree, shardings)
