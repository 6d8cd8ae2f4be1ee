"""Storage that does not take files: how much is free, and in plain words why a write failed."""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from llama_jax.errors import StorageError

STORAGE_ERRORS = (StorageError, OSError, ValueError, RuntimeError)
"""What a failed write raises: this package the first, Python the second, tensorstore the other two."""


def reason_of(error: BaseException) -> str:
    """What the operating system says about a failed write, as "No space left on device", without the path."""
    if isinstance(error, StorageError):
        return error.reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code = re.search(r"os_error_code='(\d+)'|\(os error (\d+)\)", str(error))  # as C++ and Rust tell it
    if code:
        return os.strerror(int(code[1] or code[2]))
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")


def check_room(folder: Path, needed: int) -> None:
    """Raise StorageError unless `folder`, which exists, can be written and its disk has `needed` bytes free.

    A quota is not seen here, because the system does not tell it; neither are writes that fail later.
    """
    try:
        free = shutil.disk_usage(folder).free
        with tempfile.TemporaryFile(dir=folder) as probe:  # it has no name that anybody could see
            probe.write(b"\0")
    except OSError as error:
        raise StorageError(f"cannot write in {folder}: {reason_of(error)}.", reason_of(error)) from None
    if free < needed:
        reason = f"{needed:,} bytes are needed and {free:,} are free"
        raise StorageError(f"{folder}: {reason}.", reason)


def flush_stdout() -> str:
    """Write what the standard output still holds; where it takes nothing, drop that, and return the reason.

    Otherwise Python would end with a stack trace after the command's own end.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return reason_of(error)
    return ""
