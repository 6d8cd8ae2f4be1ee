"""What an evaluation leaves behind: results.json, one JSON line an item, and how two evaluations share a folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import file_digest
from itertools import groupby
from pathlib import Path
from typing import Any

from llama_jax.errors import ConfigError, DataError
from llama_jax.evaluation.harness import TaskResult
from llama_jax.evaluation.task import (
    Estimate,
    GenerationRequest,
    Item,
    LikelihoodRequest,
    ModelAnswer,
    RollingRequest,
    Settings,
    Verdict,
)
from llama_jax.files.atomic import make_folder, write_atomic
from llama_jax.files.jsonl import write_jsonl

RESULTS_FILE = "results.json"
_FORMAT = 1
_FREE_TO_CHANGE = ("allow_code_execution", "scorer", "text_files")
"""Settings that concern single tasks, which are judged anew, and may differ between runs that share a folder."""
_OF_ONE_COMMAND = ("limit", "data_dir", "devices", "llama_jax", "jax", "date")
"""Entries of "model" that may differ between the commands that added tasks to one folder; each task keeps its own."""


def results_json(results: Sequence[TaskResult], settings: Settings, *, model: dict[str, Any]) -> dict[str, Any]:
    """Everything but the items, as JSON; `model` says what was evaluated and where."""
    asked = _settings_json(settings)
    command = {name: model[name] for name in _OF_ONE_COMMAND if name in model} | {name: asked[name] for name in _FREE_TO_CHANGE}
    return {"format": _FORMAT, "model": model, "settings": asked,
            "tasks": {result.job.task.name: _task_json(result, settings) | {"command": command} for result in results}}


def _settings_json(settings: Settings) -> dict[str, Any]:
    """All that decides what is asked; where it is written does not."""
    values = json.loads(json.dumps(asdict(settings)))
    del values["output"]
    return values


def _task_json(result: TaskResult, settings: Settings) -> dict[str, Any]:
    """One task's entry of results.json."""
    task, (items, tokens) = result.job.task, result.truncated
    metric, estimate = result.headline(settings)
    headline = estimate or Estimate(None, None, 0)
    return {
        "title": task.title, "metric": metric, **headline._asdict(), "items": len(result.job.items), "size": result.job.size,
        "percent": task.percent, "higher_is_better": task.higher_is_better,
        "numbers": {name: number._asdict() for name, number in result.numbers.items()},
        "by": {tag: {value: {name: number._asdict() for name, number in numbers.items()} for value, numbers in some.items()}
               for tag, some in result.by_tag.items()},
        "truncated_items": items, "truncated_tokens": tokens, "prompts_sha256": result.job.prompts_sha256,
        "data": result.job.hashes, "tokens": result.tokens, "seconds": round(result.seconds, 3),
    }


def estimate_from_json(numbers: dict[str, Any]) -> Estimate:
    """What `_asdict` gave."""
    return Estimate(numbers["value"], numbers["stderr"], numbers["count"])


def item_json(item: Item, answers: Sequence[ModelAnswer], *, verdict: Verdict) -> dict[str, Any]:
    """One line of the per-item file: prompts with what was said to each, prediction and gold."""
    asked: list[dict[str, Any]] = []
    pairs = list(zip(item.requests, answers, strict=True))
    for context, some in groupby(pairs, lambda pair: pair[0].context if isinstance(pair[0], LikelihoodRequest) else None):
        if context is not None:
            group = list(some)
            asked.append({"prompt": context, "choices": [request.continuation for request, _ in group],
                          "logprobs": [answer.logprob for _, answer in group],
                          "tokens": [answer.tokens for _, answer in group],
                          "is_greedy": [answer.is_greedy for _, answer in group],
                          "truncated": [answer.truncated for _, answer in group]})
            continue
        for request, answer in some:
            name = "prompt" if isinstance(request, GenerationRequest) else "text"
            asked.append({name: request.text} | {key: value for key, value in asdict(answer).items()
                                                 if isinstance(request, RollingRequest) or key != "tokens"})
    return {"key": item.key, "sha256": item.sha256, "gold": item.gold, "prediction": verdict.prediction,
            "metrics": verdict.metrics, "tags": dict(item.tags), "asked": asked}


def earlier_tasks(folder: Path, settings: Settings, *, fingerprint: str | None = None) -> dict[str, Any]:
    """The entries of tasks that an earlier evaluation left in `folder`, which a new one adds to.

    Raises ConfigError where they were asked in another way or of another model (`fingerprint`, once it is known).
    """
    if not (folder / RESULTS_FILE).exists():
        return {}
    old = read_results(folder)
    changed = [f"{name} {value!r}" for name, value in _settings_json(settings).items()
               if name not in _FREE_TO_CHANGE and old["settings"].get(name) != value]
    if changed:
        raise ConfigError(f"{folder} holds results of other settings than {', '.join(changed)}; name another --output, or "
                          "remove the folder.")
    seen = old["model"]["fingerprint"]
    if fingerprint and seen != fingerprint:
        version = fingerprint.partition("-")[0]
        why = "" if seen.startswith(f"{version}-") else (
            ", or of this one as an earlier version of llama_jax saw it, which did not look at all of its weights")
        raise ConfigError(f"{folder} holds results of another model ({old['model']['name']}{why}); name another --output, or "
                          "remove the folder.")
    return old["tasks"]


def write_results(folder: Path, report: dict[str, Any], *, results: Sequence[TaskResult]) -> None:
    """items/<task>.jsonl, then results.json, which names them by their hashes."""
    make_folder(folder / "items")
    for result in results:
        name = result.job.task.name
        rows = zip(result.job.items, result.answers, result.verdicts, strict=True)
        write_jsonl(_items_file(folder, name), (item_json(item, answers, verdict=verdict) for item, answers, verdict in rows))
        report["tasks"][name]["items_sha256"] = _file_sha256(_items_file(folder, name))
    write_atomic(folder / RESULTS_FILE, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())


def read_results(folder: Path) -> dict[str, Any]:
    """results.json of a folder; raises DataError where there is none, or another file."""
    file = folder / RESULTS_FILE
    try:
        report = json.loads(file.read_bytes())
        if report["format"] != _FORMAT:
            raise DataError(f"cannot use {file}: its format is {report['format']}, this program reads {_FORMAT}; name the "
                            "folder that eval.py wrote.")
        whole = isinstance(report["settings"], dict) and {"name", "fingerprint"} <= report["model"].keys() and all(
            {"title", "metric", "percent", "items", "size", "numbers", "by"} <= task.keys() for task in report["tasks"].values())
        if whole:
            return report
        reason = "it is not what eval.py wrote"
    except OSError as error:
        reason = error.strerror
    except (ValueError, KeyError, TypeError, AttributeError):
        reason = "it is not what eval.py wrote"
    raise DataError(f"cannot use {file}: {reason}; name the folder that eval.py wrote.")


def read_items(folder: Path, task: str, *, sha256: str | None = None) -> dict[str, dict[str, Any]]:
    """Lines of a task's per-item file by key; raises DataError where the file has another hash than results.json says."""
    file = _items_file(folder, task)
    try:
        if sha256 and _file_sha256(file) != sha256:
            raise DataError(f"{file} is not the file that {folder / RESULTS_FILE} was written with: it was changed, or another "
                            "evaluation was stopped while it wrote; evaluate again.")
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        return {row["key"]: row for row in rows}
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{file} is damaged; evaluate again.") from None


def _items_file(folder: Path, task: str) -> Path:
    """Where the lines of a task's items are."""
    return folder / "items" / f"{task}.jsonl"


def _file_sha256(file: Path) -> str:
    """sha256 of a file's content."""
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()
