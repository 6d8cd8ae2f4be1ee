"""Storage that fails on purpose: what Python does to files below a folder raises an error of the operating system.

An audit hook sees every `open`, `mkdir`, rename and removal of this process before it happens, in all threads and libraries, and
what it raises takes its place. C++ libraries do not ask it; for them the tests limit the size of files, or fill a small disk.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OPERATIONS = {"open": "open", "os.mkdir": "mkdir", "os.rename": "rename", "os.remove": "remove", "os.rmdir": "rmdir",
              "os.truncate": "truncate", "os.listdir": "list", "os.scandir": "list"}
"""Names of audit events, and what they are called here; `open` counts only where it is for writing."""


class Fault:
    """Which operations fail: the `first` of a kind and the `count - 1` after it, with the error `number`."""

    def __init__(self, folder: Path, operation: str, *, number: int, first: int = 0, count: int = 1 << 30):
        self.folder, self.operation, self.number, self.first, self.count = str(folder), operation, number, first, count
        self.seen = self.raised = 0

    def check(self, event: str, arguments: tuple) -> None:
        """Raise the error where it is this operation's turn."""
        if OPERATIONS.get(event) != self.operation or not arguments or not isinstance(arguments[0], str | os.PathLike):
            return
        if not os.fspath(arguments[0]).startswith(self.folder):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        self.seen += 1
        if self.first < self.seen <= self.first + self.count:
            self.raised += 1
            raise OSError(self.number, os.strerror(self.number), os.fspath(arguments[0]))


_active: list[Fault] = []


def _hook(event: str, arguments: tuple) -> None:
    if event in OPERATIONS:
        for fault in list(_active):
            fault.check(event, arguments)


@contextmanager
def failing(fault: Fault) -> Iterator[Fault]:
    """The fault is at work inside the block."""
    if not hasattr(sys, "_llama_jax_faults"):  # a hook cannot be removed
        sys._llama_jax_faults = True
        sys.addaudithook(_hook)
    _active.append(fault)
    try:
        yield fault
    finally:
        _active.remove(fault)
