"""Files that appear whole or not at all, and what to say where they cannot."""

import os
from contextlib import suppress
from pathlib import Path

from llama_jax.errors import DataError


def make_folder(folder: Path) -> None:
    """`folder` and its parents; raises DataError where they cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror}; name another.") from None


def write_atomic(file: Path, data: bytes) -> None:
    """`data` as `file`; a reader, or the next session after a crash, sees all of it or what was there before."""
    temporary = file.with_name(file.name + ".tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise DataError(f"cannot write {file}: {error.strerror}.") from None
