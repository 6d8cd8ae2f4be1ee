"""Checkpoints that orbax has not finished: whether everything is in them, and what those leave that never will be."""

import shutil
from pathlib import Path

import tensorstore

from llama_jax.errors import StorageError

_SUFFIX = ".orbax-checkpoint-tmp"
"""What orbax puts after the number of a step until it is finished."""


def require_arrays(folder: Path, step: int, *, number: int) -> None:
    """Raise StorageError unless the checkpoint of `step`, just before it gets its name in `folder`, holds `number` arrays.

    orbax takes a folder that cannot be listed for an empty one, and would finish a checkpoint without arrays.
    """
    unfinished = folder / f"{step}{_SUFFIX}"
    place = (unfinished if unfinished.exists() else folder / str(step)) / "state"
    keys = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"{place.absolute().as_uri()}/"}).result().list().result()
    found = sum(key.endswith(b"/.zarray") for key in keys)
    if found != number:
        reason = f"{found} of {number} arrays were written"
        raise StorageError(f"{place}: {reason}.", reason)


def remove_unfinished(folder: Path) -> None:
    """Remove what saves in `folder` that failed or were killed have left; none may be under way."""
    for left in folder.glob(f"*{_SUFFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
