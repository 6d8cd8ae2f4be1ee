"""Answers on disk as they come, so that a killed evaluation goes on from them with the same results."""

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from llama_jax.errors import DataError
from llama_jax.evaluation.task import GenerationAnswer, LikelihoodAnswer, ModelAnswer, ModelRequest
from llama_jax.files.atomic import make_folder
from llama_jax.files.json_kinds import IfThere, ListOf, json_fault

_ROW = {"chunk": str, "answers": ListOf([object]), "model": IfThere(str), "sha256": IfThere(str)}
"""A line of the file."""
_ANSWER_FIELDS = {LikelihoodAnswer.KIND: (float, int, bool, int), GenerationAnswer.KIND: (ListOf(str), ListOf(str), int)}
"""The kinds of an answer's fields in their order."""


class AnswerCache:
    """Answers by chunk of requests, kept in a file of JSON lines with one line per batch.

    A chunk's key is a hash of the model and of all requests of the chunk. Which requests form a batch depends on the chunk
    alone: a batch holds the same requests in every run, so its scores are the same to the last bit. Every line names its
    model by fingerprint and carries a checksum of its own.
    """

    FILE = "answers.jsonl"

    def __init__(self, folder: Path | None, fingerprint: str):
        """Read the answers that `folder` holds (None: keep answers in memory only).

        Lines of another model, and those that an earlier version wrote without a checksum, stay in the file and are not
        used; `notes` says so. Raises DataError for a line that was changed after it was written.
        """
        self._fingerprint = fingerprint
        self._known: defaultdict[str, dict[int, ModelAnswer]] = defaultdict(dict)
        self._file = folder / self.FILE if folder else None
        self.notes: list[str] = []
        """Sentences for the user about lines that are not used."""
        if self._file is not None:
            make_folder(self._file.parent)
            rows = read_answers(self._file, mend=True)
            for row in rows:
                if row.get("model") == fingerprint:
                    self._known[row["chunk"]] |= {number: _answer_from_row(*answer) for number, *answer in row["answers"]}
            self.notes = _notes_on_unused(self._file, [row.get("model", "") for row in rows], fingerprint=fingerprint)

    def key(self, requests: Sequence[ModelRequest]) -> str:
        """Key of a chunk: a hash of the model and of everything that was asked, generation settings included."""
        asked = [[request.KIND, *asdict(request).values()] for request in requests]
        return sha256(f"{self._fingerprint} {json.dumps(asked)}".encode()).hexdigest()

    def get(self, key: str) -> dict[int, ModelAnswer]:
        """The cached answers to the chunk of requests with this key, by the index of each request in the chunk."""
        return dict(self._known[key])

    def put(self, key: str, answers: Mapping[int, ModelAnswer]) -> None:
        """Add answers to a chunk; they are on disk when this returns."""
        self._known[key] |= answers
        if self._file is not None:
            rows = [[number, answer.KIND, *asdict(answer).values()] for number, answer in answers.items()]
            row = {"model": self._fingerprint, "chunk": key, "answers": rows}
            line = json.dumps(row | {"sha256": _line_checksum(row)})
            try:
                with self._file.open("ab") as stream:
                    stream.write(line.encode() + b"\n")
            except OSError as error:
                raise DataError(f"cannot write {self._file}: {error.strerror}; the same command goes on from there.") from None


def read_answers(file: Path, *, mend: bool = False) -> list[dict[str, Any]]:
    """The lines of an answers file as objects, checked against their checksums; none where there is no file.

    A last line without its end, which is what a kill leaves, is skipped, and with `mend` removed from the file. Raises
    DataError for every other line that is not what `AnswerCache.put` wrote.
    """
    try:
        content = file.read_bytes() if file.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        rows = [_parse_line(line, f"{file}, line {number}") for number, line in enumerate(whole.splitlines(), 1)]
        if mend and len(whole) < len(content):
            os.truncate(file, len(whole))
    except OSError as error:
        raise DataError(f"cannot use {file}: {error.strerror}; name another --output.") from None
    return rows


def _parse_line(line: bytes, where: str) -> dict[str, Any]:
    """One line, checked; a line of an earlier version has neither model nor checksum and is returned as it is."""
    remedy = "remove the file to ask everything again, or that line to ask its batch again"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    fault = json_fault(row, _ROW)
    claimed = None if fault else row.pop("sha256", None)
    if fault or not all(map(_is_answer, row["answers"])):
        raise DataError(f"{where} is damaged; {remedy}.")
    if claimed != _line_checksum(row) and (claimed is not None or set(row) != {"chunk", "answers"}):
        raise DataError(f"{where} is damaged; {remedy} (its checksum differs: it was changed after it was written).")
    return row


def _is_answer(row: list) -> bool:
    """Whether a list is [index, kind of the answer, its fields], as `AnswerCache.put` writes it."""
    kinds = _ANSWER_FIELDS.get(row[1]) if len(row) > 1 and isinstance(row[1], str) else None
    number, _, *values = row if kinds else (None, None)
    good = kinds and len(values) == len(kinds) and not json_fault(number, int)
    return bool(good) and not any(json_fault(value, kind) for value, kind in zip(values, kinds, strict=True))


def _notes_on_unused(file: Path, models: Sequence[str], *, fingerprint: str) -> list[str]:
    """Sentences about the lines of a file that are not used; `models` holds each line's fingerprint, or an empty text."""
    old = sum(not model for model in models)
    others = sum(bool(model) and model != fingerprint for model in models)
    notes = []
    if old:
        notes.append(f"{file}: {old:,} batches of answers are from an earlier version of llama_jax, without checksums; they "
                     "may be another model's, so they are not used and are asked again")
    if others:
        notes.append(f"{file}: {others:,} batches of answers are another model's; they are not used, and this model is asked "
                     "everything itself")
    if notes:
        notes.append(f"remove {file} unless that other evaluation is to go on, or name another --output")
    return notes


def _line_checksum(row: Mapping[str, Any]) -> str:
    return sha256(json.dumps(row).encode()).hexdigest()


def _answer_from_row(kind: str, *values) -> ModelAnswer:
    """An answer from what `AnswerCache.put` wrote."""
    if kind == LikelihoodAnswer.KIND:
        return LikelihoodAnswer(*values)
    texts, reasons, truncated = values
    return GenerationAnswer(tuple(texts), tuple(reasons), truncated)
