"""Stopping on request: SIGTERM or Ctrl-C make a run save a checkpoint and return, in all its processes at the same step."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils


@contextmanager
def catch_stop_signals() -> Iterator[list[str]]:
    """Collect the names of stop signals (SIGTERM and the first Ctrl-C) in a list; a second Ctrl-C interrupts as usual."""
    caught: list[str] = []

    def note(number: int, frame: object) -> None:
        caught.append(signal.Signals(number).name)
        signal.signal(number, previous[number])

    try:
        previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # this is not the main thread: signals belong to the caller
        previous = {}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def agreed_stop(caught: Sequence[str], *, ask_others: bool) -> str:
    """Decide whether the run stops now, the same in all its processes; returns the reason, or "" if it goes on.

    Args:
        caught: stop signals that this process has caught.
        ask_others: whether the processes of a run exchange what they have caught, which waits for all of them; where False, a
            run of several processes goes on. Must be the same in all processes.
    """
    if jax.process_count() == 1:
        return caught[0] if caught else ""
    if not ask_others:
        return ""
    counts = multihost_utils.process_allgather(np.array([len(caught)]))
    if not counts.any():
        return ""
    return caught[0] if caught else "another process was asked to stop"
