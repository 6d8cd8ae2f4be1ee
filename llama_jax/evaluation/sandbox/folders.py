"""The folders that programs run in: one each, removed when its program has ended, or later where nobody was left to do it."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llama_jax.interruption import removed_when_stopped

FOLDER_PREFIX = "llama_jax_sandbox_"
_STALE_SECONDS = 600
"""Age from which a folder is nobody's: a program has seconds, and its interpreter a minute to start."""
_TRIES, _PAUSE = 5, 0.05
"""Processes that are being killed may write for a moment; then removing is tried again, after so many seconds."""


@contextmanager
def program_folder() -> Iterator[str]:
    """An empty folder for one program, which is removed afterwards, whatever the program left in it."""
    folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX)
    try:
        with removed_when_stopped(Path(folder)):
            yield folder
    finally:
        remove_folder(folder)


def remove_folder(folder: str) -> None:
    """Remove a folder of a program, also where the program took away the rights to it or nested folders by the thousand.

    Links are removed, never followed.
    """
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE)
        try:
            if os.geteuid():  # root needs no rights
                _regain_rights(folder)
            shutil.rmtree(folder, ignore_errors=True)
        except RecursionError:
            subprocess.run(["rm", "-rf", "--", folder], check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
        if not os.path.lexists(folder):
            return


def _regain_rights(folder: str) -> None:
    for place, names, _ in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if not os.path.islink(path):  # chmod would follow it
                with suppress(OSError):
                    os.chmod(path, 0o700)


def remove_stale_folders() -> int:
    """Remove the folders of this user whose process was killed before it could; returns how many there were."""
    user, count = os.geteuid(), 0
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if not (entry.name.startswith(FOLDER_PREFIX) and entry.is_dir(follow_symlinks=False)):
                continue
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                # the time of the last change, which a program cannot set
                if user in (0, status.st_uid) and time.time() - status.st_ctime > _STALE_SECONDS:
                    remove_folder(entry.path)
                    count += 1
    return count
