"""A folder of weights that appears under its name when it is complete, and not before."""

import glob
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from llama_jax.errors import ConfigError, DataError, StorageError
from llama_jax.files.lock import only_writer
from llama_jax.files.storage import STORAGE_ERRORS, reason_of
from llama_jax.interruption import removed_when_stopped


@contextmanager
def new_folder(target: Path, *, needed: int) -> Iterator[Path]:
    """A temporary folder that is renamed to `target` when the block ends, and removed where it fails.

    It is called `.NAME.<pid>.unfinished` and lies beside the target; a kill leaves it there. Raises ConfigError where the target
    is a file or a folder that holds something, DataError where the disk has not the `needed` bytes or a file cannot be written.
    """
    if os.path.lexists(target) and not _is_empty_folder(target):
        raise ConfigError(f"{target} exists; name another folder, nothing is overwritten.")
    place = Path(os.path.abspath(target))
    with only_writer(place, option="folder", file=place.with_name(f".{place.name}.lock")):
        yield from _written_folder(target, place, needed=needed)


def _written_folder(target: Path, place: Path, *, needed: int) -> Iterator[Path]:
    """Yield the temporary folder once; see `new_folder`. Removes those that killed processes left."""
    folder = place.with_name(f".{place.name}.{os.getpid()}.unfinished")
    try:
        for left in place.parent.glob(f".{glob.escape(place.name)}.*.unfinished"):
            shutil.rmtree(left, ignore_errors=True)
        if (free := shutil.disk_usage(place.parent).free) < needed:
            raise DataError(f"{target} needs {needed:,} bytes and {place.parent} has {free:,} free; make room or name another "
                            "folder.")
        with removed_when_stopped(folder):
            folder.mkdir()
            yield folder
            _fsync_files(folder)
            folder.rename(place)
    except (*STORAGE_ERRORS, SafetensorError) as error:
        reason = reason_of(error)
        raise StorageError(f"cannot write {target}: {reason}; nothing of it stays.", reason) from error
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder; after a failed write, threads of tensorstore may go on for a moment and make it anew."""
    for _ in range(25):
        if not folder.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.2)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _fsync_files(folder: Path) -> None:
    """Wait until all files below `folder` are on the disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
