"""A read or save by orbax that fails leaves others unfinished, whose tracebacks would follow the one sentence; not here."""

import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_READERS = "_read_", "_get_array_metadatas"
"""In the names of orbax's coroutines that are left over."""
_CLOSED_LOOP = "Event loop is closed"
"""What tensorstore's threads raise that answer after orbax has closed its event loop."""


@contextmanager
def quiet_reads() -> Iterator[None]:
    """Context of a read by orbax. If it fails, what other reads say of their end is left out from then on."""
    hooks = sys.excepthook, sys.unraisablehook
    sys.excepthook, sys.unraisablehook = _without_closed_loop(hooks[0]), _without_readers(hooks[1])
    logging.getLogger("asyncio").addFilter(_is_no_lost_task)
    try:
        yield
    except BaseException:
        gc.collect()  # unfinished reads say it when they are collected
        raise
    else:
        sys.excepthook, sys.unraisablehook = hooks
        logging.getLogger("asyncio").removeFilter(_is_no_lost_task)


@cache
def quiet_saves() -> None:
    """From now on, leave out what orbax and tensorstore print of a save that fails: whoever asks how it went is told."""
    logging.getLogger("absl").addFilter(_is_no_orbax_trace)
    sys.excepthook, sys.unraisablehook = _without_closed_loop(sys.excepthook), _without_readers(sys.unraisablehook)


def _is_no_orbax_trace(record: logging.LogRecord) -> bool:
    return not (record.exc_info and "orbax" in record.pathname)


def _without_closed_loop(hook: Any) -> Any:
    def report(*raised: Any) -> None:  # type, exception, traceback
        if not _is_leftover(raised[1]):
            hook(*raised)

    return report


def _without_readers(hook: Any) -> Any:
    def report(unraisable: Any) -> None:
        if not _is_leftover(unraisable.exc_value) and not any(name in repr(unraisable.object) for name in _READERS):
            hook(unraisable)

    return report


def _is_leftover(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and str(error) == _CLOSED_LOOP


def _is_no_lost_task(record: logging.LogRecord) -> bool:
    return "was never retrieved" not in record.getMessage()
