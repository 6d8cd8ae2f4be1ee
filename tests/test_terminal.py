"""Numbers, durations and progress as commands show them."""

import io
import itertools

import pytest
from rich.console import Console

from llama_jax import terminal
from llama_jax.terminal import clock, compact, progress_bar


@pytest.mark.parametrize("seconds, text", [
    (0, "0:00"), (9.99, "0:09"), (75, "1:15"), (3599, "59:59"), (3600, "1:00:00"), (86_399, "23:59:59"), (86_400, "1 d 0 h"),
    (1e7, "115 d 17 h"), (float("inf"), "?"), (float("nan"), "?"), (-1, "?")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_compact():
    assert compact(12_345.678, ".2f") == "12345.68" and compact(1e304, ".2f") == "1.00e+304"


def shown(monkeypatch, seconds: list[float], reports: list[tuple], **options) -> str:
    """What is printed for `reports`, which are made at `seconds` after the start."""
    times = itertools.chain([0.0], seconds)
    monkeypatch.setattr(terminal.time, "perf_counter", lambda: next(times))
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=options.pop("force_terminal", False))
    with progress_bar("first", lambda done, seconds: f"{done:.0f} in {seconds:.0f} s", console=console, **options) as advance:
        for report in reports:
            advance(*report)
    return out.getvalue()


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch):
    seconds, reports = [9.0, 10.0, 19.9, 30.0], [(1,), (1, "second"), (1,), (7,)]
    lines = ["second: 2 in 10 s, 0:40 left", "first: 10 in 30 s, 0:00 left"]
    assert shown(monkeypatch, seconds, reports, total=10).splitlines() == lines
    lines = ["second: 2 in 10 s", "first: 10 in 30 s"]
    assert shown(monkeypatch, seconds, reports).splitlines() == lines


def test_brackets_are_text(monkeypatch):
    assert shown(monkeypatch, [11.0], [(1, "[red]a")]) == "[red]a: 1 in 11 s\n"


@pytest.mark.parametrize("total", [None, 4])
def test_a_terminal_gets_a_live_bar(monkeypatch, total):
    out = shown(monkeypatch, [1.0, 2.0, 3.0], [(1,), (1, "second[red]"), (2,)], total=total, force_terminal=True)
    assert "\x1b[2K" in out and "second[red]" in out and "4 in 3 s" in out
