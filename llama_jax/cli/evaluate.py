"""eval.py at work: load, ask with progress, and write the report."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from llama_jax.config import MeshConfig, to_dict
from llama_jax.errors import ConfigError
from llama_jax.evaluation.answers import Answerer, run_and_step
from llama_jax.evaluation.cache import AnswerCache, read_answers
from llama_jax.evaluation.harness import TaskResult, distinct_requests, evaluate_tasks, request_characters
from llama_jax.evaluation.options import Evaluate
from llama_jax.evaluation.requests import PreparedTask, prepare_tasks
from llama_jax.evaluation.results import RESULTS_FILE, earlier_tasks, results_json, write_results
from llama_jax.formats.loading import load
from llama_jax.model.accounting import parameter_count
from llama_jax.parallel.malloc import keep_freed_memory
from llama_jax.report.compare import compare_evaluations
from llama_jax.report.evaluation import evaluation_tables, write_evaluation_report
from llama_jax.report.page import print_tables, write_page
from llama_jax.report.published import PUBLISHED_TABLES, published_table
from llama_jax.terminal import clock
from llama_jax.version import VERSION

SECONDS_BETWEEN_LINES = 10.0
"""How often progress is printed where there is no terminal."""


def run_evaluate(asked: Evaluate) -> None:
    """All tasks, in this order: what can be wrong, the model, the answers, the report."""
    if not asked.checkpoint:
        raise ConfigError("give --checkpoint DIR and --tasks NAMES, or --compare RUN_A RUN_B, or --tables NUMBERS.")
    if not 0 < asked.tensor <= jax.device_count():
        raise ConfigError(f"tensor must lie in [1, {jax.device_count()}], the devices there are, got {asked.tensor}.")
    asked = replace(asked, checkpoint=pinned(asked.checkpoint))
    name, folder = name_of(asked), output_of(asked)
    settings = asked.settings(str(folder))
    jobs = prepare_tasks(asked.names(), asked.data_dir, settings, asked.limit)
    earlier_tasks(folder, settings)
    read_answers(folder / AnswerCache.FILE)  # what is damaged in it is told before the model is loaded
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    model, params, tokenizer = load(asked.checkpoint, MeshConfig(data=-1, tensor=asked.tensor))
    answerer = Answerer(model, params, tokenizer)
    earlier_tasks(folder, settings, fingerprint=answerer.fingerprint)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    store = AnswerCache(folder, answerer.fingerprint)
    for line in store.notes:
        console.print(line, markup=False)
    with jax.set_mesh(params["embedding"].sharding.mesh), progress(console, jobs) as report:
        results = evaluate_tasks(jobs, answerer, settings=settings, cache=store, progress=report)
    report = results_json(results, settings, model=model_of(asked, name, answerer))
    # read again: another command may have added tasks meanwhile
    report["tasks"] = earlier_tasks(folder, settings, fingerprint=answerer.fingerprint) | report["tasks"]
    write_results(folder, report, results=results)
    write_evaluation_report(folder, report)
    print_tables(stdout(), evaluation_tables(report))
    for line in warnings(results, model.config.max_length):
        console.print(line, markup=False)
    print(f"{folder}: {RESULTS_FILE}, items/, report.md, report.html")


def run_compare(asked: Evaluate) -> None:
    """Print the paired differences, and write them where --output says so."""
    grid = compare_evaluations(*map(Path, asked.compare))
    print_tables(stdout(), [grid])
    if asked.output:
        write_page(Path(asked.output), "compare", title="Comparison", tables=[grid])


def run_tables(asked: Evaluate) -> None:
    """Print published tables."""
    known = {table.number: table for table in PUBLISHED_TABLES}
    numbers = [number for text in asked.tables for number in text.replace(",", " ").split()]
    if unknown := [number for number in numbers if number not in known and number != "all"]:
        raise ConfigError(f"the paper has no table {', '.join(unknown)} here; there are {', '.join(known)}, or all.")
    print_tables(stdout(), [published_table(table) for number, table in known.items()
                            if number in numbers or "all" in numbers])


def stdout() -> Console:
    """The terminal, or a page wide enough for Table 3."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 180)


def pinned(checkpoint: str) -> str:
    """The same, with the step of a run named: a run that goes on training may save a newer one meanwhile."""
    run, step = run_and_step(checkpoint)
    return str(run) if step is None else str(run / "checkpoints" / str(step))


def name_of(asked: Evaluate) -> str:
    """What the user's row is called: the folder, and the step of a run."""
    run, step = run_and_step(asked.checkpoint)
    return run.resolve().name + ("" if step is None else f", step {step}")


def output_of(asked: Evaluate) -> Path:
    """The folder of the report: inside a run, else in evals/; other ways of asking get folders of their own."""
    if asked.output:
        return Path(asked.output)
    run, step = run_and_step(asked.checkpoint)
    words = [run.resolve().name if step is None else str(step), *([asked.protocol] if asked.protocol != "llama" else []),
             *([f"{asked.num_fewshot}shot"] if asked.num_fewshot is not None else []),
             *([f"limit{asked.limit}"] if asked.limit else [])]
    return (Path("evals") if step is None else run / "evals") / "-".join(words)


def model_of(asked: Evaluate, name: str, answerer: Answerer) -> dict[str, Any]:
    """What was evaluated, on what."""
    devices = jax.devices()
    return {"name": name, "checkpoint": str(Path(asked.checkpoint).resolve()), "fingerprint": answerer.fingerprint,
            "parameters": parameter_count(answerer.model.config), "config": to_dict(answerer.model.config),
            "tokenizer_sha256": answerer.tokenizer.sha256, "limit": asked.limit, "data_dir": asked.data_dir,
            "devices": f"{len(devices)} x {devices[0].device_kind}", "llama_jax": VERSION, "jax": jax.__version__,
            "date": time.strftime("%Y-%m-%d")}


def warnings(results: Sequence[TaskResult], length: int) -> Iterator[str]:
    """What a reader of the numbers should know."""
    for result in results:
        items, tokens = result.truncated
        if items:
            yield (f"{result.job.task.name}: {items:,} of {len(result.job.items):,} items were longer than the model's "
                   f"context of {length:,} tokens and lost {tokens:,} tokens at their beginning")


@contextmanager
def progress(console: Console, jobs: Sequence[PreparedTask]) -> Iterator[Callable[[str, float], None]]:
    """A bar with the time left on a terminal, else a line now and then; the result hears of characters done."""
    total = max(1, sum(map(request_characters, distinct_requests(jobs))))
    done, begin, printed = 0.0, time.perf_counter(), time.perf_counter()

    def plain(name: str, new: float) -> None:
        nonlocal done, printed
        done += new
        now = time.perf_counter()
        if now - printed >= SECONDS_BETWEEN_LINES:
            printed = now
            left = f", {clock(max(0.0, (now - begin) * (total / done - 1)))} left" if done else ""  # no pace to go by yet
            console.print(f"{name}: {done / total:.1%} of all requests{left}", markup=False)

    if not console.is_terminal:
        yield plain
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(jobs[0].task.name, total=total)
        yield lambda name, new: bar.update(task, description=name, advance=new)
