"""Progress lines of an evaluation where there is no terminal: shares and remaining time are right from the first one."""

import io
import itertools

from rich.console import Console

from llama_jax import terminal
from llama_jax.cli import evaluate as command
from llama_jax.evaluation.requests import prepare_tasks
from llama_jax.evaluation.task import Settings


def lines_of(jobs, monkeypatch, seconds: list[float], parts: list[float]) -> list[str]:
    """What is printed for reports of `parts` of all requests, made at `seconds` after the start."""
    times = itertools.chain([0.0], seconds)
    monkeypatch.setattr(terminal.time, "perf_counter", lambda: next(times))
    total = sum(map(command.request_characters, command.distinct_requests(jobs)))
    out = io.StringIO()
    with command._progress(Console(file=out), jobs) as report:
        for part in parts:
            report("siqa", part * total)
    return out.getvalue().splitlines()


def test_a_first_report_at_share_0_after_a_long_plan(eval_data, monkeypatch):
    jobs = prepare_tasks(["siqa"], str(eval_data), settings=Settings(), limit=0)
    assert lines_of(jobs, monkeypatch, [12.0, 15.0, 24.0, 8000.0, 8010.0], [0.0, 0.2, 0.05, 0.25, 0.6]) == [
        "siqa: 0.0% of all requests",
        "siqa: 25.0% of all requests, 1:12 left",
        "siqa: 50.0% of all requests, 2:13:20 left",
        "siqa: 110.0% of all requests, 0:00 left",
    ]
