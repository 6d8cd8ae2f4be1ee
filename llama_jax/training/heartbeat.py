"""The heartbeat of a run: a file that says how far it is, and a watchdog that ends a run whose steps hang."""

import faulthandler
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llama_jax.interruption import set_aside

HEARTBEAT_FILE = "heartbeat.json"
"""File of a run directory: step, phase, time (Unix seconds of the last progress), alive (of this line), pid and host."""
STACKS_FILE = "stacks.txt"
"""File of a run directory with the stacks of all threads at the moment at which the watchdog ended the run."""
TRAINING = "training"
"""The phase in which steps are trained, which alone the watchdog watches."""

_TICK = 1.0
_TICKS_PER_LINE = 5
_BYTES_PER_SECOND = 100e6
"""Pace at which a checkpoint is taken to be written, until one has been."""


class Heartbeat:
    """A thread that writes HEARTBEAT_FILE every few seconds and watches the steps.

    Args:
        workdir: the run directory.
        active: whether this process writes the file; all processes of a run watch.
        hang_seconds: seconds of TRAINING without a finished step after which the process dumps all stacks and exits with code 1;
            0: never. Seconds in which the whole process stood still (a suspended machine) do not count.
    """

    def __init__(self, workdir: Path, *, active: bool, hang_seconds: float):
        self._workdir, self._active, self._hang_seconds = workdir, active, hang_seconds
        self._step, self._phase, self._progress, self._wall_time = 0, "opening", time.monotonic(), time.time()
        self._silent = 0.0  # seconds of training without progress
        self._longest_step, self._longest_save = 0.0, 1.0
        self._saving: tuple[Path, float] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def step(self, step: int) -> None:
        """Note that `step` was dispatched, for which the one before had to end."""
        now = time.monotonic()
        if self._phase == TRAINING:
            self._longest_step = max(self._longest_step, now - self._progress)
        self._step, self._phase = step, TRAINING
        self._note_progress()

    def enter(self, name: str) -> None:
        """Note that work other than training steps begins, which may take any time."""
        self._phase = name
        self._note_progress()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Context of work other than training steps, which may take any time."""
        before = self._phase
        self.enter(name)
        yield
        self.enter(before)

    def begin_to_save(self, folder: Path, num_bytes: int) -> None:
        """Note that a checkpoint of `num_bytes` bytes begins to be written, which is complete once `folder` exists.

        How long that takes is set aside where the process is to end at a given time.
        """
        self._saving = folder, time.monotonic()
        self.expect_checkpoint(num_bytes)

    def expect_checkpoint(self, num_bytes: int) -> None:
        """Set time aside for a checkpoint of this size."""
        self._longest_save = max(self._longest_save, min(num_bytes / _BYTES_PER_SECOND, 600.0))

    def close(self) -> None:
        """Write the last line, and end the thread."""
        self.enter("ended")
        self._closed.set()
        self._thread.join()

    def _note_progress(self) -> None:
        self._silent, self._progress, self._wall_time = 0.0, time.monotonic(), time.time()

    def _beat(self) -> None:
        ticks, written = 0, ""
        try:
            while not self._closed.wait(_TICK if ticks else 0):
                self._tick(write=ticks % _TICKS_PER_LINE == 0 or self._phase != written)
                written = self._phase
                ticks += 1
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._write_file()

    def _tick(self, *, write: bool) -> None:
        if self._phase == TRAINING and self._hang_seconds:
            self._silent += _TICK
            if self._silent >= self._hang_seconds:
                self._end_hanging()
        if write:
            self._write_file()
            if self._phase == TRAINING and self._hang_seconds:  # where code holds Python's lock, no thread of Python can act
                faulthandler.dump_traceback_later(self._hang_seconds + 60, exit=True, file=2)
            else:
                faulthandler.cancel_dump_traceback_later()
        with suppress(OSError):
            if self._saving and self._saving[0].exists():
                self._longest_save = max(self._longest_save, time.monotonic() - self._saving[1])
                self._saving = None
        set_aside(2 * self._longest_step + 1.5 * self._longest_save + 1.0)

    def _write_file(self) -> None:
        if not self._active:
            return
        line = {"step": self._step, "phase": self._phase, "time": round(self._wall_time, 3), "alive": round(time.time(), 3),
                "pid": os.getpid(), "host": socket.gethostname()}
        temporary = self._workdir / f"{HEARTBEAT_FILE}.tmp"
        with suppress(OSError):  # a full disk does not end a run
            temporary.write_text(json.dumps(line) + "\n")
            temporary.replace(self._workdir / HEARTBEAT_FILE)

    def _end_hanging(self) -> None:
        """Dump the stacks of all threads, and end this process, which a supervisor can start again."""
        self._phase = "hanging"
        self._write_file()
        faulthandler.dump_traceback(file=2, all_threads=True)
        name = STACKS_FILE if self._active else f"{STACKS_FILE}.{socket.gethostname()}.{os.getpid()}"
        with suppress(OSError), (self._workdir / name).open("w") as stream:
            faulthandler.dump_traceback(file=stream, all_threads=True)
        os.write(2, f"error: no step has ended for {self._silent:.0f} seconds after step {self._step} was begun "
                    f"(training.hang_seconds); the stacks of all threads are above and in {self._workdir / name}. The same "
                    "command goes on from the newest checkpoint.\n".encode())
        os._exit(1)
