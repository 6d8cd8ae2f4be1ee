"""Files that appear whole or not at all, and what to say where they cannot."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from llama_jax.errors import DataError


def make_folder(folder: Path) -> None:
    """`folder` and its parents; raises DataError where they cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}; name another.") from None


def check_writable(file: Path) -> None:
    """Make the folder of an output file and try to write there, before hours are spent on its content; raises DataError."""
    make_folder(file.parent)
    if os.path.isdir(file):
        raise DataError(f"cannot write {file}: it is a folder; name a file.")
    if not is_special(file):
        temporary = temporary_of(file)
        try:
            temporary.touch()
            temporary.unlink()
        except OSError as error:
            raise DataError(f"cannot write {file}: {error.strerror}; name another.") from None


def write_atomic(file: Path, data: bytes) -> None:
    """`data` as `file`; a reader, or the next session after a crash, sees all of it or what was there before."""
    with atomic_stream(file) as stream:
        stream.write(data)


@contextmanager
def atomic_stream(file: Path) -> Iterator[BinaryIO]:
    """A stream whose content becomes `file` where the block ends without an error; else `file` stays what it was.

    A pipe or a device is written to as it is. Raises DataError where nothing can be written.
    """
    if is_special(file):
        try:
            with open(file, "wb") as stream:
                yield stream
        except OSError as error:
            raise DataError(f"cannot write {file}: {error.strerror or error}.") from None
        return
    temporary = temporary_of(file)
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(temporary.with_name(temporary.name.removesuffix(".tmp")))
    except (Exception, KeyboardInterrupt) as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise DataError(f"cannot write {file}: {error.strerror or error}.") from None


def is_special(file: Path) -> bool:
    """Whether `file` is a pipe or a device, which must not be replaced, or a folder, which cannot be."""
    return os.path.exists(file) and not os.path.isfile(file)


def temporary_of(file: Path) -> Path:
    """Where the content of `file` grows: beside the file that it is, or that it links to."""
    file = Path(os.path.realpath(file))
    return file.with_name(file.name + ".tmp")
