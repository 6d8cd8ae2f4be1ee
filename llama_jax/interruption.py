"""Requests to stop this process, by a signal or by a clock, and what is done then.

An exception that a signal raises in the midst of a compiler's callbacks crashes the process, and while the main thread is inside
a C function it is not raised at all. Here Python's handler in C writes the signal to a socket (`signal.set_wakeup_fd`), and a
thread that reads there acts, whatever the main thread does: it saves what there is to save, removes temporary files, says one
sentence, and ends the process. Everything that is written appears whole or not at all, so that no work needs to be unwound.
"""

import atexit
import os
import select
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROCESS_START = time.monotonic()
"""time.monotonic() at the first import of this module, which entry points import first."""

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
_SHOW_CURSOR = b"\x1b[?25h"
_SECONDS_TO_FLUSH = 1.0
"""Seconds that printed lines may take to reach a reader that is slow."""

_unfinished: set[Path] = set()
_last_actions: list[Callable[[], None]] = []
_watch: "_Watch | None" = None


class _Watch:
    """The thread that hears of stop requests, and what it does about them."""

    def __init__(self):
        self.requests: list[str] = []
        self.code: int | None = None
        self.deadline: tuple[float, str] | None = None
        self.aside = 0.0
        self.act: Callable[[str], str] | None = None
        self.second_ends, self.forward = True, False
        self.lock = threading.RLock()  # held while `act` changes, and to the end by the thread that acts
        self.reader, self.writer = socket.socketpair()
        self.writer.setblocking(False)
        self.catch_signals()
        signal.set_wakeup_fd(self.writer.fileno(), warn_on_full_buffer=False)
        if os.name == "posix":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # an entry point blocks them until it has imported this module
            os.register_at_fork(after_in_child=_leave_signals_to_parent)
        atexit.register(_ignore_signals)  # Python ends its threads, then gives signals their first meaning, which is death
        threading.Thread(target=self._listen, name="stop requests", daemon=True).start()

    def catch_signals(self) -> None:
        """Let Python's handler in C have the signals; what `nohup` ignores stays ignored."""
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN or number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda number, frame: None)

    def _listen(self) -> None:
        while True:
            ready, _, _ = select.select([self.reader], [], [], 0.25 if self.deadline else None)
            for number in self.reader.recv(64) if ready else b"":
                if number in _SIGNALS:
                    self.hear(signal.Signals(number).name, number=number)
            if self.deadline and time.monotonic() >= self.deadline[0] - self.aside:
                (_, name), self.deadline = self.deadline, None
                self.hear(name, number=signal.SIGTERM)

    def hear(self, name: str, *, number: int) -> None:
        """Note a request, and act on it where there is something to do."""
        again = bool(self.requests)
        self.requests.append(name)
        if again and number == signal.SIGINT and self.second_ends:
            _end("interrupted again; stopped at once", 128 + number)
        if not again and self.forward and name != "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        if not again:
            self.begin_to_act()

    def begin_to_act(self) -> None:
        """Act in another thread, so that this one hears of a second Ctrl-C meanwhile."""
        threading.Thread(target=self._act_and_end, name="stop", daemon=True).start()

    def _act_and_end(self) -> None:
        with self.lock:
            if self.act is None:
                return
            name = self.requests[0]
            try:
                sentence = f"{'interrupted' if name == 'SIGINT' else f'stopped by {name}'}; {self.act(name)}"
            except Exception as error:
                _end(f"error: {(str(error) or type(error).__name__).splitlines()[0]}", getattr(error, "exit_code", 1))
            number = signal.Signals[name] if name in signal.Signals.__members__ else signal.SIGTERM
            _end(sentence, 128 + number if self.code is None else self.code)


def watch_stop_signals() -> None:
    """Note SIGINT (Ctrl-C), SIGTERM, SIGHUP and SIGUSR1 from now on; only the entry point of a process calls this.

    What is done about them, also about those that came before, `end_when_stopped` and `acting_when_stopped` decide; a second
    Ctrl-C ends the process at once.
    """
    global _watch
    if _watch is None:
        with suppress(ValueError):  # this is not the main thread: signals belong to the caller
            _watch = _Watch()


def end_when_stopped(left: str, *, code: int | None = None) -> None:
    """Let a stop request end the process from now on, with a sentence that ends in `left`: what stays, and what to do.

    `code` is the exit code; None: 128 and the signal's number, as shells have it. Without `watch_stop_signals` nothing changes.
    """
    if _watch is not None:
        with _watch.lock:
            _watch.act, _watch.code = (lambda name: left), code
        if _watch.requests:
            _watch.begin_to_act()


def noted_stops(*, second_ends: bool = True, forward: bool = False) -> list[str] | None:
    """Only note stop requests from now on: the caller looks into the list that this returns.

    Args:
        second_ends: whether a second Ctrl-C still ends the process at once.
        forward: send the process SIGTERM at any other request, for a library that listens for that.

    Returns:
        The names of the requests so far, to which later ones are added; None where `watch_stop_signals` was not called.
    """
    if _watch is None:
        return None
    with _watch.lock:
        _watch.act, _watch.second_ends, _watch.forward = None, second_ends, forward
    return _watch.requests


def catch_signals_again() -> None:
    """Take the signals back from a library that has set handlers of its own."""
    if _watch is not None:
        _watch.catch_signals()


def stop_at(moment: float, name: str) -> None:
    """Request a stop so early that the process can end by a moment of time.monotonic(); sentences call the request `name`."""
    if _watch is not None:
        _watch.deadline = moment, name
        _watch.writer.send(b"\0")  # no signal: the thread looks at the clock from now on


def set_aside(seconds: float) -> None:
    """Say how long a stop takes at present, for `stop_at`; no more than half of the time that the process has is set aside."""
    if _watch is not None and _watch.deadline:
        _watch.aside = min(seconds, (_watch.deadline[0] - PROCESS_START) / 2)


@contextmanager
def acting_when_stopped(action: Callable[[str], str]) -> Iterator[None]:
    """Let a stop request end the process while the block runs, after `action`, which runs in a thread beside the block.

    Args:
        action: (name of the request) -> the end of the sentence that is printed: what was saved, and what to do. The block does
            not end before it does. An error that it raises is printed, and its `exit_code` is the process's. Where requests are
            forwarded, it is not called: one process of several must not end alone.
    """
    if _watch is None or _watch.forward:
        yield
        return
    with _watch.lock:
        before, _watch.act = _watch.act, action
    if _watch.requests:
        _watch.begin_to_act()
    try:
        yield
    finally:
        with _watch.lock:  # waits for an action that has begun, which ends the process
            _watch.act = before


@contextmanager
def removed_when_stopped(path: Path) -> Iterator[None]:
    """Remove a temporary file or folder where the process is ended by a stop request while the block runs."""
    _unfinished.add(path)
    try:
        yield
    finally:
        _unfinished.discard(path)


@contextmanager
def done_before_end(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` before the process is ended by a stop request while the block runs; an error that it raises is printed."""
    _last_actions.append(action)
    try:
        yield
    finally:
        _last_actions.remove(action)


def _end(sentence: str, code: int) -> None:
    """Print a sentence and end the process, without unwinding what it does."""
    for action in [*_last_actions]:
        try:
            action()
        except Exception as error:
            sentence, code = f"{sentence}\nerror: {(str(error) or type(error).__name__).splitlines()[0]}", 1
    for path in [*_unfinished]:
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for stream in (sys.stdout, sys.stderr):
        flushing = threading.Thread(target=_flush, args=(stream,), daemon=True)
        flushing.start()
        flushing.join(_SECONDS_TO_FLUSH)
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR + b"\n")
        os.write(2, f"{sentence}\n".encode())
    os._exit(code)


def _flush(stream: object) -> None:
    with suppress(OSError, ValueError, AttributeError):
        stream.flush()


def _ignore_signals() -> None:
    """A process whose work is done ends with its own exit code."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _leave_signals_to_parent() -> None:
    """A forked process must not write its signals to the socket of its parent."""
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)
