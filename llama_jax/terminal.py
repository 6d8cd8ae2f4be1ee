"""Terminal output of the commands: the progress bar that all of them share, and short forms of numbers and durations."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0
"""Seconds between two lines of progress where the output is no terminal, so that no bar can be redrawn."""

Advance = Callable[..., None]
"""advance(amount, title=""): add `amount` to the work that is done; a title replaces the text before the bar."""


def compact(value: float, form: str = "") -> str:
    """Format a number, in scientific notation where `form` would take more than 12 characters (a diverged perplexity)."""
    text = format(value, form)
    return text if len(text) <= 12 else format(value, ".2e")


def clock(seconds: float) -> str:
    """Format a duration as 1:15, 1:06:40 or 3 d 4 h, or as a question mark where it is negative or not finite."""
    if not 0 <= seconds < float("inf"):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def progress_bar(
    title: str, describe: Callable[[float, float], str], *, total: float | None = None, console: Console | None = None,
) -> Iterator[Advance]:
    """Show progress: a live bar on a terminal, else a plain line every SECONDS_BETWEEN_LINES.

    Args:
        title: What is being worked on; stands before the bar and may be empty.
        describe: (amount done, seconds since the start) -> text beside the bar, such as counts and rates.
        total: Amount of all work in any unit; None where it is not known, and then no time left is shown.
        console: Where to print; stderr where it is not given.

    Yields:
        A function to call whenever more of the work is done.
    """
    console = console or Console(stderr=True, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield _plain_lines(title, describe, total=total, console=console)
        return
    begin, done = time.perf_counter(), 0.0
    columns = [TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[text]}", markup=False),
               TimeElapsedColumn(), *([TimeRemainingColumn()] if total is not None else [])]
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, text="")

        def advance(amount: float, title: str = "") -> None:
            nonlocal done
            done += amount
            text = describe(done, time.perf_counter() - begin)
            bar.update(task, advance=amount, text=text, description=title or None)

        yield advance


def _plain_lines(
    title: str, describe: Callable[[float, float], str], *, total: float | None, console: Console,
) -> Advance:
    """Show progress as lines, for logs and pipes."""
    begin = printed = time.perf_counter()
    done = 0.0

    def advance(amount: float, title: str = title) -> None:
        nonlocal done, printed
        done += amount
        now = time.perf_counter()
        if now - printed < SECONDS_BETWEEN_LINES:
            return
        printed = now
        line = f"{title}: " if title else ""
        line += describe(done, now - begin)
        if total is not None and done > 0:  # before that there is no pace to go by
            line += f", {clock(max(0.0, (now - begin) * (total / done - 1)))} left"
        console.print(line, markup=False)

    return advance
