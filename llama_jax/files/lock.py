"""One writer: a folder is locked by the process that works on it, and a second one is refused with a sentence.

The lock is an advisory lock of the operating system on a file in the folder, which the kernel frees when its process ends,
however it ends. The file also says who holds it, for people and for file systems whose locks do not reach other hosts: the
holder sets its modification time every few seconds, and a lock of another host without that sign of life is taken over.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from llama_jax.errors import DataError
from llama_jax.files.atomic import make_folder
from llama_jax.interruption import removed_when_stopped

try:
    import fcntl
except ImportError:  # not on Windows, where only the text in the file locks
    fcntl = None

LOCK_FILE = "writer.lock"
"""File in a folder that the process which works on the folder holds locked."""

_BEAT_SECONDS = 5.0
"""Seconds between two signs of life of a lock's holder."""
_SILENT_SECONDS = 30.0
"""Seconds without a sign of life after which a lock of another host is taken over."""
_RACE_SECONDS = 0.5
"""Seconds in which two processes see what the other wrote, on a file system without locks."""

_held: set[Path] = set()
"""Folders that this process holds."""


@contextmanager
def only_writer(folder: Path, *, option: str = "--output", file: Path | None = None) -> Iterator[None]:
    """Hold `folder` for this process while the block runs; inside another such block of the process nothing happens.

    Args:
        folder: What is written to; it is made where it is missing.
        option: The option by which another folder could be named, for the sentence.
        file: The lock file; None: LOCK_FILE in the folder.

    Raises:
        DataError: Another process holds it, or the lock file cannot be written.
    """
    place = Path(os.path.realpath(folder))
    if place in _held:
        yield
        return
    file = file or place / LOCK_FILE
    make_folder(file.parent)
    remedy = f"wait for it, or name another {option}"
    try:
        handle = _locked_file(file, f"another command is at work on {folder}; {remedy}")
    except OSError as error:
        raise DataError(f"cannot lock {folder}: {error.strerror}; name another {option}.") from None
    _held.add(place)
    released = threading.Event()
    try:
        with removed_when_stopped(file):
            threading.Thread(target=_give_signs_of_life, args=(file, released), daemon=True).start()
            yield
    finally:
        released.set()
        _held.discard(place)
        with suppress(OSError):
            file.unlink()  # before it is freed: whoever opened it meanwhile sees that it is gone
        os.close(handle)


def _locked_file(file: Path, refusal: str) -> int:
    """Open, lock and sign a lock file; returns its descriptor. Raises DataError, which begins with `refusal`, if it is held."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            by_system = _lock(handle)
            if by_system is False:
                raise DataError(f"{refusal} ({_described(_read_owner(file, wait=True))}).")
            if not _is_same_file(handle, file):  # its holder has just removed it
                os.close(handle)
                continue
            owner = _read_owner(file)
            if owner and _may_be_alive(owner, file, by_system=bool(by_system)):
                raise DataError(f"{refusal} ({_described(owner)}). If that process is gone, remove {file}.")
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(_this_process()).encode())
            if not by_system:
                time.sleep(_RACE_SECONDS)
                if _read_owner(file) != _this_process():
                    raise DataError(f"{refusal} ({_described(_read_owner(file))}).")
            return handle
        except BaseException:
            with suppress(OSError):
                os.close(handle)
            raise


def _lock(handle: int) -> bool | None:
    """Whether the system gave this process the lock; None on a file system without locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None


def _is_same_file(handle: int, file: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(handle), os.stat(file))
    return False


def _may_be_alive(owner: dict[str, Any], file: Path, *, by_system: bool) -> bool:
    """Whether the process that signed a lock file may still hold it, though the system's lock is free or unknown.

    A process of this host is looked up. One of another host is alive where the file's modification time changes; clocks of
    different hosts are not compared.
    """
    if owner.get("machine") == this_machine():
        return not by_system and start_of_process(owner.get("pid", 0)) == owner.get("started")
    print(f"{file} is the lock of {_described(owner)}; looking for {_SILENT_SECONDS:.0f} seconds whether that process is alive",
          file=sys.stderr, flush=True)
    end, first = time.monotonic() + _SILENT_SECONDS, _beat(file)
    while time.monotonic() < end:
        time.sleep(1.0)
        if _beat(file) != first:
            return True
    return False


def _beat(file: Path) -> int | None:
    """The modification time of a lock file; opening it also makes NFS look anew."""
    try:
        with file.open("rb") as stream:
            return os.fstat(stream.fileno()).st_mtime_ns
    except OSError:
        return None


def _read_owner(file: Path, *, wait: bool = False) -> dict[str, Any]:
    """What the holder of a lock file wrote of itself; empty where that cannot be read, also after waiting a little."""
    for _ in range(10 if wait else 1):
        with suppress(OSError, ValueError):
            owner = json.loads(file.read_text())
            return owner if isinstance(owner, dict) else {}
        time.sleep(0.05 if wait else 0)
    return {}


def _described(owner: dict[str, Any]) -> str:
    """Words for the process that wrote a lock file."""
    if not {"pid", "host", "since"} <= owner.keys():
        return "its lock does not say which process that is"
    return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"


@lru_cache
def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "machine": this_machine(), "started": start_of_process(os.getpid())}


def _give_signs_of_life(file: Path, released: threading.Event) -> None:
    """Renew the lock file's modification time; end the process where another has signed the lock meanwhile."""
    while not released.wait(_BEAT_SECONDS):
        with suppress(OSError):
            if _read_owner(file) not in (_this_process(), {}) and not released.is_set():
                print(f"error: another process has taken over {file}, because this one gave no sign of life; it ends here.",
                      file=sys.stderr, flush=True)
                os._exit(1)
            os.utime(file)


@lru_cache
def this_machine() -> str:
    """What tells the processes of this host, since it started, from all others: a pid means a process only among them."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def start_of_process(pid: int) -> str | None:
    """When a process of this host started, in the kernel's clock ticks; None: it is gone; "": it exists, no more is known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return ""


@contextmanager
def locked_by_worker(file: Path) -> Iterator[None]:
    """Hold a lock together with other worker processes, for which `wait_for_workers` waits."""
    if fcntl is None:
        yield
        return
    with file.open("a") as workers:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(workers, fcntl.LOCK_SH)
        yield


def wait_for_workers(file: Path) -> None:
    """Wait until no worker of a killed command holds the lock `file`."""
    if fcntl is not None:
        with file.open("a") as workers, suppress(OSError):
            fcntl.flock(workers, fcntl.LOCK_EX)
