"""The file metrics.jsonl: one JSON object per line, each with the `step` after which its metrics were measured."""

import json
import logging
import math
from pathlib import Path
from typing import Any

from llama_jax.errors import DataError
from llama_jax.files.appended import AppendedFile
from llama_jax.files.atomic import write_atomic
from llama_jax.files.encoding import is_unicode

LOG = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
"""File of a run directory that holds the training, held-out and evaluation metrics."""

DAMAGED_METRICS = "metrics.damaged.jsonl"
"""File of a run directory that keeps lines which a resumed run found damaged in METRICS_FILE."""

_BEGIN = '{"step": '
"""How every line begins that this package writes."""


def metrics_line(values: dict[str, Any]) -> str:
    """Encode one line of metrics.jsonl; a number that is not finite becomes null, as JSON has no NaN and no infinity."""
    return json.dumps(_finite_or_none(values), allow_nan=False) + "\n"


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite_or_none(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return list(map(_finite_or_none, value))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def open_metrics(file: Path, last_step: int) -> AppendedFile:
    """Open metrics.jsonl for appending, after removing the lines of steps after `last_step` that a killed session left.

    Lines that are damaged are moved to DAMAGED_METRICS beside it, and the log says so; those around them stay.
    """
    lines, damaged = _split_damaged(file)
    if damaged:
        aside = file.with_name(DAMAGED_METRICS)
        before = aside.read_bytes() if aside.exists() else b""
        write_atomic(aside, before + b"".join(line + b"\n" for line in damaged))
        LOG.warning("%s: %d damaged line(s) are set aside in %s.", file, len(damaged), aside.name)
    kept = "".join(metrics_line(line) for line in lines if line["step"] <= last_step).encode()
    if not file.exists() or file.read_bytes() != kept:
        write_atomic(file, kept)
    return AppendedFile(file)


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """Read the lines of a metrics.jsonl, none if it does not exist; damaged ones are left out.

    Raises DataError where the file cannot be read.
    """
    return _split_damaged(file)[0]


def holds_evaluation(file: Path, step: int) -> bool:
    """Whether metrics.jsonl has what was evaluated after `step`: a line of it without the loss of the step itself."""
    return any(line["step"] == step and "loss" not in line for line in read_metrics(file))


def _split_damaged(file: Path) -> tuple[list[dict[str, Any]], list[bytes]]:
    """(whole lines, damaged lines) of a metrics.jsonl; a last line that a crash cut short is in neither."""
    try:
        *raw, unfinished = file.read_bytes().split(b"\n") if file.exists() else [b""]
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}.") from None
    lines, damaged = [], []
    for line in raw:
        found, rest = _parse_line(line)
        lines += found
        if rest.strip():
            damaged.append(rest)
    return lines + _parse_line(unfinished)[0], damaged


def _parse_line(line: bytes) -> tuple[list[dict[str, Any]], bytes]:
    """(the metrics in a line, what is left of it); a lost line end leaves two lines of metrics in one, which are both found."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return _parse_joined(line)
    return ([values], b"") if _is_metrics(values) else ([], line)


def _parse_joined(line: bytes) -> tuple[list[dict[str, Any]], bytes]:
    """`_parse_line` of a line that is not JSON: the metrics that can be read in it, each from _BEGIN on."""
    text, found, rest, at = line.decode(errors="surrogateescape"), [], "", 0
    while (begin := text.find(_BEGIN, at)) >= 0:
        rest += text[at:begin]
        try:
            values, at = json.JSONDecoder().raw_decode(text, begin)
        except (ValueError, RecursionError):
            values, at = None, begin + len(_BEGIN)
        if _is_metrics(values) and is_unicode(text[begin:at]):
            found.append(values)
        else:
            rest += text[begin:at]
    return found, (rest + text[at:]).encode(errors="surrogateescape")


def _is_metrics(values: Any) -> bool:
    """Whether a JSON value can be a line of metrics: an object with a step, whose whole numbers fit into 64 bits."""
    if not isinstance(values, dict) or type(values.get("step")) is not int or values["step"] < 0:
        return False
    return all(abs(value) < 1 << 63 for value in values.values() if isinstance(value, int))
