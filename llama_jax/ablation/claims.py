"""Claims: files by which processes, on one host or on several that share a folder, agree who does which piece of work.

A claim on the work NAME is the file NAME.N in the folder of claims, where N is its generation: 0 for the first claim, and one
more for each that follows. It is made with O_EXCL, so that of all processes that try for a generation exactly one gets it. The
holder sets the file's modification time every few seconds (its heartbeat) and marks the file when it releases the work. A claim
that is released or stale is followed by the next generation and never removed: nobody can mistake a new claim for the old one.

A claim is stale when its process is gone, if that ran on this host, or else when its heartbeat has not been seen to change for
a while. Clocks of different hosts are never compared.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from llama_jax.errors import DataError
from llama_jax.files.atomic import make_folder, write_atomic
from llama_jax.files.lock import start_of_process, this_machine

CLAIM_BEAT = 5.0
"""Seconds between two heartbeats of a claim."""

CLAIM_TIMEOUT = 120.0
"""Seconds without a heartbeat after which a claim of another host is stale."""


class Standing(NamedTuple):
    """What the claims on a piece of work say."""

    generation: int
    """Number of the newest claim; -1 where there never was one."""
    free: bool
    """Whether the work may be claimed as generation + 1."""
    holder: dict[str, Any]
    """What the newest claim's process wrote of itself: host, machine, pid, started, cores; empty where there is none."""


class Claim:
    """A claim that this process holds: a thread renews its heartbeat until it is released.

    Should another process have taken the work over (this one, or its connection, stood still for longer than CLAIM_TIMEOUT), this
    process ends at once, so that no two do the same work.
    """

    def __init__(self, file: Path, *, beat: float = CLAIM_BEAT):
        self._file, self._beat = file, beat
        name, _, generation = file.name.rpartition(".")
        self._next = file.with_name(f"{name}.{int(generation) + 1}")
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the work back: from now on others may claim it."""
        self._released.set()
        self._thread.join()
        with suppress(DataError):  # the folder is gone, and with it what could be claimed
            write_atomic(self._file, json.dumps({"released": True}).encode())

    def _keep_alive(self) -> None:
        while not self._released.wait(self._beat):
            try:
                lost = self._next.exists()
                if not lost:
                    os.utime(self._file)
            except OSError:
                lost = not self._file.exists()
            if lost:
                print(f"error: another process has taken {self._file.name} over, because this one gave no sign of life; it ends "
                      "here.", file=sys.stderr, flush=True)
                os._exit(1)

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class ClaimWatch:
    """An observer of the claims in a folder, which remembers when it saw each heartbeat change."""

    def __init__(self, folder: Path, *, timeout: float = CLAIM_TIMEOUT):
        self._folder, self._timeout = folder, timeout
        self._seen: dict[str, tuple[int, float]] = {}  # claim -> (modification time, when this process first saw that)

    def standings(self) -> dict[str, Standing]:
        """The standing of every piece of work that was ever claimed, by name."""
        newest: dict[str, int] = {}
        for file in os.listdir(self._folder) if self._folder.is_dir() else ():
            name, _, generation = file.rpartition(".")
            if generation.isdecimal():
                newest[name] = max(int(generation), newest.get(name, -1))
        return {name: self._standing(name, generation) for name, generation in newest.items()}

    def _standing(self, name: str, generation: int) -> Standing:
        file = self._folder / f"{name}.{generation}"
        holder = _read_holder(file)  # on NFS, opening a file also makes its modification time current
        return Standing(generation, holder.get("released", False) or not self._is_alive(file, holder), holder)

    def _is_alive(self, file: Path, holder: dict[str, Any]) -> bool:
        if holder.get("machine") == this_machine():
            return start_of_process(holder.get("pid", 0)) == holder.get("started")
        try:
            beat = file.stat().st_mtime_ns
        except OSError:
            beat = 0
        now = time.monotonic()
        before, since = self._seen.get(file.name, (None, now))
        if before != beat:
            self._seen[file.name] = beat, now
            return True
        return now - since < self._timeout


def take_claim(folder: Path, name: str, *, generation: int, cores: Sequence[int] = ()) -> Claim | None:
    """Claim the work `name` as this generation; None where another process was first.

    `cores` are the processor cores that this process keeps to, for others on this host to see.
    """
    file = folder / f"{name}.{generation}"
    make_folder(folder)
    try:
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return None
    except OSError as error:
        raise DataError(f"cannot write {file}: {error.strerror}.") from None
    with os.fdopen(handle, "w") as stream:
        json.dump({"host": socket.gethostname(), "machine": this_machine(), "pid": os.getpid(),
                   "started": start_of_process(os.getpid()), "cores": list(cores)}, stream)
    return Claim(file)


@contextmanager
def hold_claim(folder: Path, name: str, *, seconds_between_looks: float = 0.5) -> Iterator[None]:
    """Context in which this process holds the claim on `name`; waits for as long as another one holds it."""
    watch, claim = ClaimWatch(folder), None
    while claim is None:
        standing = watch.standings().get(name, Standing(-1, True, {}))
        if standing.free:
            claim = take_claim(folder, name, generation=standing.generation + 1)
        if claim is None:
            time.sleep(seconds_between_looks)
    with claim:
        yield


def _read_holder(file: Path) -> dict[str, Any]:
    """What a claim's process wrote; empty while it is being written, or where the file is gone or damaged."""
    try:
        holder = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}
