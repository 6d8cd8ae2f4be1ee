"""Answers on disk as they come: an evaluation that was killed goes on from them, and its results are the same."""

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

from llama_jax.data.atomic import make_folder
from llama_jax.errors import DataError
from llama_jax.evaluation.task import Answer, Request, Score, Texts


class Store:
    """Answers in one file of JSON lines, a batch a line, under the hash of the model and of all the requests of a chunk.

    What is batched together depends on the chunk alone: the requests of a batch are then the same in every run, and so
    are their scores, to the last bit.
    """

    FILE = "answers.jsonl"

    def __init__(self, folder: Path | None, fingerprint: str):
        self._fingerprint = fingerprint
        self._known: defaultdict[str, dict[int, Answer]] = defaultdict(dict)
        self._file = folder / self.FILE if folder else None
        if folder:
            make_folder(folder)
            self._read(folder / self.FILE)

    def _read(self, file: Path) -> None:
        """Take what is whole; a line that a kill cut short is dropped."""
        try:
            content = file.read_bytes() if file.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            for number, line in enumerate(whole.splitlines(), 1):
                try:
                    row = json.loads(line)
                    self._known[row["chunk"]] |= {number: answer_of(*answer) for number, *answer in row["answers"]}
                except (ValueError, KeyError, TypeError):
                    raise DataError(f"{file}, line {number} is damaged; remove the file to ask everything anew.") from None
            if len(whole) < len(content):
                os.truncate(file, len(whole))
        except OSError as error:
            raise DataError(f"cannot use {file}: {error.strerror}; name another --output.") from None

    def key(self, requests: Sequence[Request]) -> str:
        """What a chunk is known by."""
        asked = [[type(request).__name__, *asdict(request).values()] for request in requests]
        return sha256(f"{self._fingerprint} {json.dumps(asked)}".encode()).hexdigest()

    def get(self, key: str) -> dict[int, Answer]:
        """The answers of a chunk, those that there are, by the number of the request."""
        return dict(self._known[key])

    def put(self, key: str, answers: Mapping[int, Answer]) -> None:
        """Keep them; they are on disk when this returns."""
        self._known[key] |= answers
        if self._file is not None:
            rows = [[number, type(answer).__name__, *asdict(answer).values()] for number, answer in answers.items()]
            line = json.dumps({"chunk": key, "answers": rows})
            try:
                with self._file.open("ab") as stream:
                    stream.write(line.encode() + b"\n")
            except OSError as error:
                raise DataError(f"cannot write {self._file}: {error.strerror}; the same command goes on from there.") from None


def answer_of(kind: str, *values) -> Answer:
    """What `put` wrote."""
    if kind == "Score":
        return Score(*values)
    texts, reasons, truncated = values
    return Texts(tuple(texts), tuple(reasons), truncated)
