"""The file metrics.jsonl: one JSON object per line, each with the `step` after which its metrics were measured."""

import json
import math
from pathlib import Path
from typing import Any, TextIO

from llama_jax.files.atomic import write_atomic

METRICS_FILE = "metrics.jsonl"
"""File of a run directory that holds the training, held-out and evaluation metrics."""


def metrics_line(values: dict[str, Any]) -> str:
    """Encode one line of metrics.jsonl; a number that is not finite becomes null, as JSON has no NaN and no infinity."""
    return json.dumps(_finite_or_none(values), allow_nan=False) + "\n"


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite_or_none(inner) for name, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def open_metrics(file: Path, last_step: int) -> TextIO:
    """Open metrics.jsonl for appending, after removing the lines of steps after `last_step` that a killed session left."""
    kept = [line for line in read_metrics(file) if line["step"] <= last_step]
    write_atomic(file, "".join(map(metrics_line, kept)).encode())
    return file.open("a")


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Read the lines of a metrics.jsonl, none if it does not exist; a last line cut short by a crash is left out."""
    if not file.exists():
        return []
    lines = []
    for line in file.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def holds_evaluation(file: Path, step: int) -> bool:
    """Whether metrics.jsonl has what was evaluated after `step`: a line of it without the loss of the step itself."""
    return any(line["step"] == step and "loss" not in line for line in read_metrics(file))
