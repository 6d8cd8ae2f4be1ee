"""Stopping on request: a run saves a checkpoint and returns, in all its processes at the same step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

from llama_jax.interruption import noted_stops
from llama_jax.parallel.distributed import announces_preemption


@contextmanager
def catch_stop_signals() -> Iterator[list[str]]:
    """Collect the names of stop requests in a list.

    In a command, these are all that `interruption` hears of, up to the end of the process. Where `fit` is called as a function,
    they are SIGTERM and the first Ctrl-C while the block runs; a second one does what it did before.
    """
    noted = noted_stops(forward=announces_preemption())
    if noted is not None:
        yield noted
        return
    caught: list[str] = []

    def note(number: int, frame: object) -> None:
        caught.append(signal.Signals(number).name)
        signal.signal(number, previous[number])
        if announces_preemption():
            signal.raise_signal(signal.SIGTERM)

    # where jax announces a preemption to all processes, SIGTERM is what it listens for
    numbers = (signal.SIGINT,) if announces_preemption() else (signal.SIGTERM, signal.SIGINT)
    try:
        previous = {number: signal.signal(number, note) for number in numbers}
    except ValueError:  # this is not the main thread: signals belong to the caller
        previous = {}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def agreed_stop(caught: list[str], step: int, *, ask_others: bool) -> str:
    """Decide whether the run stops after `step`, the same in all its processes; returns the reason, or "" if it goes on.

    Processes agree by jax's own notice of preemption, which reaches all of them a second or two after a stop request to any; all
    must call this after every step.

    Args:
        caught: stop requests that this process has caught; that of another process is added.
        step: the step that was just dispatched.
        ask_others: where jax's notice is switched off (JAX_ENABLE_PREEMPTION_SERVICE=0), whether the processes exchange what they
            have caught after this step, which waits for all of them.
    """
    if jax.process_count() == 1:
        return caught[0] if caught else ""
    if announces_preemption():
        stops = multihost_utils.reached_preemption_sync_point(step)
    else:
        stops = ask_others and multihost_utils.process_allgather(np.array([len(caught)])).any()
    if stops and not caught:
        caught.append("another process was asked to stop")
    return caught[0] if stops else ""
