"""Atomic writes: a file appears whole or not at all, and a failed write is an error that says why."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from llama_jax.errors import DataError, StorageError
from llama_jax.files.storage import reason_of
from llama_jax.interruption import removed_when_stopped


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents where they are missing; raises StorageError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {folder}: {reason_of(error)}; name another.", reason_of(error)) from None


def check_writable(file: Path) -> None:
    """Make the folder of an output file and try to write there; raises DataError or StorageError if that fails.

    Call it before work whose result takes hours, so that a wrong path fails at once.
    """
    make_folder(file.parent)
    if os.path.isdir(file):
        raise DataError(f"cannot write {file}: it is a folder; name a file.")
    if not _is_special(file):
        temporary = _temporary_name(file)
        try:
            temporary.touch()
            temporary.unlink()
        except OSError as error:
            raise StorageError(f"cannot write {file}: {reason_of(error)}; name another.", reason_of(error)) from None


def write_atomic(file: Path, data: bytes) -> None:
    """Write `data` as `file`: a reader, also after a crash, finds either all of it or what was there before."""
    with atomic_stream(file) as stream:
        stream.write(data)


@contextmanager
def atomic_stream(file: Path) -> Iterator[BinaryIO]:
    """A binary stream whose content replaces `file` when the block ends; after an error, `file` is what it was before.

    The content is written to a temporary file beside it, synced to disk, and renamed. A pipe or a device cannot be replaced and
    is written to directly. Raises StorageError where that fails.
    """
    if _is_special(file):
        try:
            with open(file, "wb") as stream:
                yield stream
        except OSError as error:
            raise StorageError(f"cannot write {file}: {reason_of(error)}.", reason_of(error)) from None
        return
    temporary = _temporary_name(file)
    try:
        with removed_when_stopped(temporary), open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(temporary.with_name(temporary.name.removesuffix(".tmp")))
    except (Exception, KeyboardInterrupt) as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise StorageError(f"cannot write {file}: {reason_of(error)}.", reason_of(error)) from None


def _is_special(file: Path) -> bool:
    """Whether `file` is a pipe or a device, which must not be replaced, or a folder, which cannot be."""
    return os.path.exists(file) and not os.path.isfile(file)


def _temporary_name(file: Path) -> Path:
    """Where new content of `file` is written first: beside the file itself, or beside the one that it links to."""
    file = Path(os.path.realpath(file))
    return file.with_name(file.name + ".tmp")
