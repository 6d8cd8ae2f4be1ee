"""`llama_jax eval` and eval.py at work: load a model, answer the tasks' requests, and write the report."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from llama_jax.cli.load_model import check_devices, load_model
from llama_jax.cli.options import EvaluateOptions
from llama_jax.config import to_dict
from llama_jax.errors import ConfigError
from llama_jax.evaluation.answers import Answerer, run_and_step
from llama_jax.evaluation.cache import AnswerCache, read_answers
from llama_jax.evaluation.fingerprint import FingerprintWhileReading
from llama_jax.evaluation.harness import TaskProgress, distinct_requests, evaluate_tasks, request_characters
from llama_jax.evaluation.requests import PreparedTask, prepare_tasks
from llama_jax.evaluation.results import RESULTS_FILE, TaskResult, earlier_tasks, results_json, write_results
from llama_jax.evaluation.task import Settings
from llama_jax.files.lock import only_writer
from llama_jax.model.accounting import parameter_count
from llama_jax.report.compare import compare_evaluations
from llama_jax.report.evaluation import evaluation_tables, write_evaluation_report
from llama_jax.report.page import print_tables, write_page
from llama_jax.report.published import PUBLISHED_TABLES, published_table
from llama_jax.terminal import progress_bar
from llama_jax.version import VERSION

SETTINGS = ("protocol", "num_fewshot", "num_samples", "max_tokens", "seed", "allow_code_execution", "scorer", "gotcha",
            "text_files")
"""Options that decide what is asked of the model and how answers are graded."""


def run_eval(asked: EvaluateOptions) -> None:
    """Evaluate, compare two evaluations, or print the paper's tables: whichever is asked for."""
    if asked.tables:
        _print_tables(asked)
    elif asked.compare:
        _compare(asked)
    else:
        _evaluate(asked)


def _evaluate(asked: EvaluateOptions) -> None:
    """Check what can be wrong, load the model, collect its answers, write the report."""
    if not asked.checkpoint:
        raise ConfigError("give --checkpoint DIR and --tasks NAMES, or --compare RUN_A RUN_B, or --tables NUMBERS.")
    check_devices(asked.tensor)
    asked = replace(asked, checkpoint=_with_step(asked.checkpoint))
    name, folder = _row_name(asked), _output_folder(asked)
    settings = Settings(output=str(folder), **{name: getattr(asked, name) for name in SETTINGS})
    jobs = prepare_tasks(_names(asked.tasks), asked.data_dir, settings=settings, limit=asked.limit)
    with only_writer(folder):
        _evaluate_into(folder, asked, jobs=jobs, settings=settings, name=name)


def _evaluate_into(folder: Path, asked: EvaluateOptions, *, jobs: list[PreparedTask], settings: Settings, name: str) -> None:
    """Evaluate, and write the report into the folder, which this process holds."""
    earlier_tasks(folder, settings)
    read_answers(folder / AnswerCache.FILE)  # damaged lines are told before the model is loaded
    weights = FingerprintWhileReading()
    model, params, tokenizer = load_model(asked.checkpoint, asked.tensor, data=-1, dtype=asked.dtype, verify=asked.verify,
                                          observe=weights.add)
    answerer = Answerer(model, params, tokenizer,
                        weights.fingerprint(model, tokenizer=tokenizer, int8=asked.dtype == "int8"))
    earlier_tasks(folder, settings, fingerprint=answerer.fingerprint)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    cache = AnswerCache(folder, answerer.fingerprint)
    for line in cache.notes:
        console.print(line, markup=False)
    with jax.set_mesh(params.mesh), _progress(console, jobs) as progress:
        results = evaluate_tasks(jobs, answerer, settings=settings, cache=cache, progress=progress)
    report = results_json(results, settings, model=_model_entry(asked, answerer, name=name))
    report["tasks"] = earlier_tasks(folder, settings, fingerprint=answerer.fingerprint) | report["tasks"]
    write_results(folder, report, results=results)
    write_evaluation_report(folder, report)
    print_tables(_stdout(), evaluation_tables(report))
    for line in _warnings(results, model.config.max_length):
        console.print(line, markup=False)
    print(f"{folder}: {RESULTS_FILE}, items/, report.md, report.html")


def _compare(asked: EvaluateOptions) -> None:
    """Print the paired differences, and write them where --output says so."""
    table = compare_evaluations(*map(Path, asked.compare))
    print_tables(_stdout(), [table])
    if asked.output:
        write_page(Path(asked.output), "compare", title="Comparison", parts=[table])


def _print_tables(asked: EvaluateOptions) -> None:
    """Print tables of the paper as they were published."""
    known = {table.number: table for table in PUBLISHED_TABLES}
    numbers = _names(asked.tables)
    unknown = [number for number in numbers if number not in known and number != "all"]
    if unknown:
        raise ConfigError(f"the paper has no table {', '.join(unknown)} here; there are {', '.join(known)}, or all.")
    chosen = [table for number, table in known.items() if number in numbers or "all" in numbers]
    print_tables(_stdout(), [published_table(table) for table in chosen])


def _names(texts: Sequence[str]) -> list[str]:
    """The words of an option that takes them separated by commas or spaces."""
    return [name for text in texts for name in text.replace(",", " ").split()]


def _stdout() -> Console:
    """The terminal at its width; files and pipes get lines wide enough for Table 3."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 180)


def _with_step(checkpoint: str) -> str:
    """Add the newest step to the path of a run directory, because a run that goes on training may save another one meanwhile."""
    run, step = run_and_step(checkpoint)
    return str(run) if step is None else str(run / "checkpoints" / str(step))


def _row_name(asked: EvaluateOptions) -> str:
    """What the model's row in the tables is called: its folder, and the step of a run."""
    run, step = run_and_step(asked.checkpoint)
    return run.resolve().name + ("" if step is None else f", step {step}")


def _output_folder(asked: EvaluateOptions) -> Path:
    """The folder of the report, inside a run or in evals/; every protocol, num_fewshot and limit gets a folder of its own."""
    if asked.output:
        return Path(asked.output)
    run, step = run_and_step(asked.checkpoint)
    words = [run.resolve().name if step is None else str(step)]
    if asked.protocol != "llama":
        words.append(asked.protocol)
    if asked.num_fewshot is not None:
        words.append(f"{asked.num_fewshot}shot")
    if asked.dtype != "stored":
        words.append(asked.dtype)
    if asked.limit:
        words.append(f"limit{asked.limit}")
    return (Path("evals") if step is None else run / "evals") / "-".join(words)


def _model_entry(asked: EvaluateOptions, answerer: Answerer, *, name: str) -> dict[str, Any]:
    """Description of the model, and of the machine that evaluated it, for results.json."""
    devices = jax.devices()
    return {"name": name, "checkpoint": str(Path(asked.checkpoint).resolve()), "fingerprint": answerer.fingerprint,
            "parameters": parameter_count(answerer.model.config), "config": to_dict(answerer.model.config),
            "tokenizer_sha256": answerer.tokenizer.sha256, "limit": asked.limit, "data_dir": asked.data_dir,
            "devices": f"{len(devices)} x {devices[0].device_kind}", "llama_jax": VERSION, "jax": jax.__version__,
            "date": time.strftime("%Y-%m-%d")}


def _warnings(results: Sequence[TaskResult], length: int) -> Iterator[str]:
    """Notes for the report, such as how many items did not fit into the model's context."""
    for result in results:
        items, tokens = result.truncated
        if items:
            yield (f"{result.prepared.task.name}: {items:,} of {len(result.prepared.items):,} items were longer than the model's "
                   f"context of {length:,} tokens and lost {tokens:,} tokens at their beginning")


@contextmanager
def _progress(console: Console, jobs: Sequence[PreparedTask]) -> Iterator[TaskProgress]:
    """A progress bar in characters of requests, which are known before anything is tokenised; named after the task."""
    total = max(1, sum(map(request_characters, distinct_requests(jobs))))
    shown = progress_bar(jobs[0].task.name, lambda done, seconds: f"{done / total:.1%} of all requests",
                         total=total, console=console)
    with shown as advance:
        yield lambda name, amount: advance(amount, name)
