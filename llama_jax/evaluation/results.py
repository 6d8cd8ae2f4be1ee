"""Results of tasks, and the files that hold them: results.json, one JSON line per item, and how evaluations share a folder."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import file_digest
from itertools import groupby
from pathlib import Path
from typing import Any

from llama_jax.errors import ConfigError, DataError
from llama_jax.evaluation.requests import PreparedTask
from llama_jax.evaluation.task import (
    Estimate,
    GenerationRequest,
    Item,
    LikelihoodAnswer,
    LikelihoodRequest,
    ModelAnswer,
    RollingRequest,
    Settings,
    Verdict,
)
from llama_jax.files.atomic import make_folder, write_atomic
from llama_jax.files.json_kinds import EntriesOf, IfThere, json_fault, show_value
from llama_jax.files.jsonl import write_jsonl

RESULTS_FILE = "results.json"
_FORMAT = 1
"""Raised when files of this version can no longer be read by earlier ones."""
_FREE_TO_CHANGE = ("allow_code_execution", "scorer", "text_files")
"""Settings that may differ between evaluations that share a folder: each concerns single tasks, which are judged anew."""
_OF_ONE_COMMAND = ("limit", "data_dir", "devices", "llama_jax", "jax", "date")
"""Entries of "model" that may differ between the commands that added tasks to a folder; each task keeps its own."""
_ESTIMATE = {"value": (float, None), "stderr": (float, None), "count": int}
_TASK_ENTRY = {
    "title": str, "metric": str, "percent": bool, "items": int, "size": int, **_ESTIMATE, "numbers": EntriesOf(_ESTIMATE),
    "by": EntriesOf(EntriesOf(EntriesOf(_ESTIMATE))), "truncated_items": int, "truncated_tokens": int, "prompts_sha256": str,
    "data": EntriesOf(str), "tokens": int, "seconds": float, "items_sha256": IfThere(str),
    "command": IfThere({"scorer": IfThere(str)}),
}
_RESULTS = {"format": int, "settings": {"protocol": str}, "model": {"name": str, "fingerprint": str},
            "tasks": EntriesOf(_TASK_ENTRY)}
_TASK_NAME = re.compile(r"\w[\w.+-]{0,99}")
_ITEM = {"key": str, "sha256": str, "gold": object, "metrics": EntriesOf((float, bool, None))}
"""What results.json and each line of a per-item file must hold to be used; they hold more."""


@dataclass(frozen=True)
class TaskResult:
    """A task's metrics and what they rest on."""

    prepared: PreparedTask
    answers: list[list[ModelAnswer]]
    """answers[i][r] is the answer to request r of item i."""
    verdicts: list[Verdict]
    numbers: dict[str, Estimate]
    """Metrics over all items, by name."""
    by_tag: dict[str, dict[str, dict[str, Estimate]]]
    """Metrics over the items with a tag: by_tag[tag][value][name]."""
    tokens: int
    """Tokens read, scored or written in this session; answers from the cache, or asked for an earlier task, count none."""
    seconds: float
    """Time spent on asking and judging; time that tasks spent together is shared by characters."""

    @property
    def truncated(self) -> tuple[int, int]:
        """(items, tokens) that lost the beginning of a context."""
        lost = [sum(answer.truncated for answer in answers) for answers in self.answers]
        return sum(map(bool, lost)), sum(lost)

    def headline(self, settings: Settings) -> tuple[str, Estimate | None]:
        """The metric that stands for the task and its value; None where no item has it, as for programs that were not run."""
        name = self.prepared.task.headline[settings.protocol]
        return name, self.numbers.get(name)


def results_json(results: Sequence[TaskResult], settings: Settings, *, model: dict[str, Any]) -> dict[str, Any]:
    """The content of results.json; `model` says which model was evaluated, and how."""
    asked = _settings_json(settings)
    command = {name: model[name] for name in _OF_ONE_COMMAND if name in model} | {name: asked[name] for name in _FREE_TO_CHANGE}
    tasks = {result.prepared.task.name: _task_json(result, settings) | {"command": command} for result in results}
    return {"format": _FORMAT, "model": model, "settings": asked, "tasks": tasks}


def _settings_json(settings: Settings) -> dict[str, Any]:
    """Everything that decides what is asked and how it is judged; the output folder does not."""
    values = json.loads(json.dumps(asdict(settings)))  # tuples become lists, as they are in the file
    del values["output"]
    return values


def _task_json(result: TaskResult, settings: Settings) -> dict[str, Any]:
    """Build the entry of one task in results.json."""
    prepared, (truncated_items, truncated_tokens) = result.prepared, result.truncated
    task = prepared.task
    metric, estimate = result.headline(settings)
    headline = estimate or Estimate(None, None, 0)
    by_tag = {tag: {value: _estimates_json(numbers) for value, numbers in values.items()}
              for tag, values in result.by_tag.items()}
    return {
        "title": task.title, "metric": metric, **headline._asdict(), "items": len(prepared.items), "size": prepared.size,
        "percent": task.percent, "higher_is_better": task.higher_is_better, "numbers": _estimates_json(result.numbers),
        "by": by_tag, "truncated_items": truncated_items, "truncated_tokens": truncated_tokens,
        "prompts_sha256": prepared.prompts_sha256, "data": prepared.hashes, "tokens": result.tokens,
        "seconds": round(result.seconds, 3),
    }


def _estimates_json(numbers: dict[str, Estimate]) -> dict[str, dict[str, Any]]:
    return {name: estimate._asdict() for name, estimate in numbers.items()}


def estimate_from_json(numbers: dict[str, Any]) -> Estimate:
    """An Estimate from its entry in results.json."""
    return Estimate(numbers["value"], numbers["stderr"], numbers["count"])


def item_json(item: Item, answers: Sequence[ModelAnswer], *, verdict: Verdict) -> dict[str, Any]:
    """One line of the per-item file: prompts with the model's answers, its prediction and the gold answer."""
    asked: list[dict[str, Any]] = []
    pairs = list(zip(item.requests, answers, strict=True))
    for context, group in groupby(pairs, lambda pair: getattr(pair[0], "context", None)):
        if context is None:
            asked += [_text_json(request, answer) for request, answer in group]
        else:
            asked.append(_choices_json(context, list(group)))
    return {"key": item.key, "sha256": item.sha256, "gold": item.gold, "prediction": verdict.prediction,
            "metrics": verdict.metrics, "tags": dict(item.tags), "asked": asked}


def _choices_json(context: str, group: list[tuple[LikelihoodRequest, LikelihoodAnswer]]) -> dict[str, Any]:
    """The continuations of one context with their scores, in columns."""
    return {"prompt": context, "choices": [request.continuation for request, _ in group],
            "logprobs": [answer.logprob for _, answer in group],
            "tokens": [answer.tokens for _, answer in group],
            "is_greedy": [answer.is_greedy for _, answer in group],
            "truncated": [answer.truncated for _, answer in group]}


def _text_json(request: RollingRequest | GenerationRequest, answer: ModelAnswer) -> dict[str, Any]:
    """A scored text with its score, or a prompt with its generations."""
    name = "prompt" if isinstance(request, GenerationRequest) else "text"
    return {name: request.text} | asdict(answer)


def earlier_tasks(folder: Path, settings: Settings, *, fingerprint: str | None = None) -> dict[str, Any]:
    """Entries of the tasks that an earlier evaluation left in `folder`, which a new one adds to; none without results.

    Raises ConfigError where they were asked with other settings, or of another model than that of `fingerprint` (None: it is
    not known yet, and is not compared).
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
        same_version = seen.startswith(f"{version}-")
        why = "" if same_version else ", or of this one under the fingerprint that another version of llama_jax gave it"
        raise ConfigError(f"{folder} holds results of another model ({old['model']['name']}{why}); name another --output, or "
                          "remove the folder.")
    return old["tasks"]


def write_results(folder: Path, report: dict[str, Any], *, results: Sequence[TaskResult]) -> None:
    """Write items/<task>.jsonl, then results.json (`report`) with the hashes of these files."""
    make_folder(folder / "items")
    for result in results:
        file = _items_file(folder, result.prepared.task.name)
        rows = zip(result.prepared.items, result.answers, result.verdicts, strict=True)
        write_jsonl(file, (item_json(item, answers, verdict=verdict) for item, answers, verdict in rows))
        report["tasks"][result.prepared.task.name]["items_sha256"] = _file_sha256(file)
    write_atomic(folder / RESULTS_FILE, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())


def read_results(folder: Path) -> dict[str, Any]:
    """The content of a folder's results.json; raises DataError where there is none, or another file."""
    file = folder / RESULTS_FILE
    try:
        report = json.loads(file.read_bytes())
        version = report.get("format") if isinstance(report, dict) else None
        if version not in (None, _FORMAT):
            reason = f"its format is {show_value(version)}, this program reads {_FORMAT}"
        elif fault := json_fault(report, _RESULTS) or _fault_of_names(report["tasks"]):
            reason = f"it is not what eval.py wrote ({fault})"
        else:
            return report
    except OSError as error:
        reason = error.strerror
    except (ValueError, RecursionError):
        reason = "it is not what eval.py wrote (not JSON)"
    raise DataError(f"cannot use {file}: {reason}; name the folder that eval.py wrote.")


def _fault_of_names(names: Iterable[str]) -> str:
    """What is wrong with the names of tasks, which are names of files too; empty where nothing is."""
    return next((f"{show_value(name)} is no name of a task" for name in names if not _TASK_NAME.fullmatch(name)), "")


def read_items(folder: Path, task: str, *, sha256: str | None = None) -> dict[str, dict[str, Any]]:
    """The lines of a task's per-item file by item key; raises DataError where the file has another hash than `sha256`."""
    file = _items_file(folder, task)
    try:
        if sha256 and _file_sha256(file) != sha256:
            raise DataError(f"{file} is not the file that {folder / RESULTS_FILE} was written with: it was changed, or another "
                            "evaluation was stopped while it wrote; evaluate again.")
        rows: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
            row = json.loads(line) if line else None
            if line and (fault := json_fault(row, _ITEM) or "a key that is there twice" * (row["key"] in rows)):
                raise DataError(f"{file}, line {number} is damaged ({fault}); evaluate again.")
            if line:
                rows[row["key"]] = row
        return rows
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise DataError(f"{file} is damaged; evaluate again.") from None


def _items_file(folder: Path, task: str) -> Path:
    return folder / "items" / f"{task}.jsonl"


def _file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()
