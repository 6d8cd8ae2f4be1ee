"""Line-level deduplication over all documents, as CCNet does it (Wenzek et al. 2020, section 3.1): the first occurrence stays.

Every task hashes the lines of its documents; then all hashes are compared, a part of them at a time; then every task removes the
lines that an earlier task has, and those that its own documents had before. Earlier is by task, document and line, so that the
result does not depend on the workers.

Memory: a task holds 8 bytes per line while it hashes (20 at the end, when it sorts them), and 8 bytes per line that it has in
common with others while it removes; comparing takes about 40 bytes per different line of each task in the part at hand.
"""

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from llama_jax.clean.stages import LARGEST_TASKS, Stage, Workplace
from llama_jax.clean.steps import CountedStep
from llama_jax.files.atomic import atomic_stream

_INPUT_PER_PART = 2 << 30
"""Bytes of input files per part of the hashes; the parts are ranges of hashes, and their number depends on the input alone."""
_NO_WORDS = 0
"""Stands for the hash of a line without letters and digits, which is not compared."""


def normalize_line(line: str) -> str:
    """A line as it is compared: lower case, every digit 0, without accents, punctuation and symbols, single spaces."""
    line = line.lower()
    if not line.isascii():
        line = unicodedata.normalize("NFD", line)  # accents become characters of their own, which belong to no word
    line = re.sub(r"[^\w\s]+|_+", "", line)
    return " ".join(re.sub(r"\d", "0", line).split())


def hash_lines(text: str) -> np.ndarray:
    """uint64[lines]: the first 64 bits of the SHA-1 of every normalised line; 0 where nothing is left of it."""
    return np.fromiter(map(_hash_line, text.split("\n")), dtype=np.uint64)


def _hash_line(line: str) -> int:
    normal = normalize_line(line).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.sha1(normal, usedforsecurity=False).digest()[:8], "big") if normal else _NO_WORDS


def remove_lines(text: str, gone: np.ndarray, *, hashes: np.ndarray) -> str:
    """The text without the lines where `gone` (bool[lines]) is True; a line without words goes where the line before it goes.

    `hashes` is `hash_lines(text)`. The result is empty where no line with words stays.
    """
    kept, keep, words = [], True, False
    for line, removed, value in zip(text.split("\n"), gone, hashes, strict=True):
        if value != _NO_WORDS:
            keep = not removed
            words = words or keep
        if keep:
            kept.append(line)
    return "\n".join(kept) if words else ""


def deduplicate_lines_stage(place: Workplace) -> Stage:
    """The stage between the one that ends with HashLines and the one that begins with RemoveLines."""
    size = sum(file.path.stat().st_size for file in place.files)
    parts = min(-(-size // _INPUT_PER_PART) or 1, LARGEST_TASKS)
    return place.stage("compare lines", CompareLines(place.folder("lines"), place.tasks), tasks=parts)


class HashLines(PipelineStep):
    """Saves the hashes of the lines of all documents of a task, sorted: each once, and which of them come several times."""

    type, name = "uncounted", "hash lines"

    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder

    def run(self, data, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        collected = array("Q")
        for document in data:
            collected.frombytes(hash_lines(document.text).tobytes())
            yield document
        hashes = np.frombuffer(collected, dtype=np.uint64) if collected else np.zeros(0, np.uint64)
        hashes.sort()
        again = np.zeros(len(hashes), bool)
        again[1:] = hashes[1:] == hashes[:-1]
        _save(self._folder / f"{rank:05d}.npy", hashes[~again & (hashes != _NO_WORDS)])
        repeated = np.unique(hashes[again])
        _save(self._folder / f"{rank:05d}.repeated.npy", repeated[repeated != _NO_WORDS])


class CompareLines(PipelineStep):
    """Finds, in one range of hashes, those that each task of the stage before has in common with an earlier task.

    Saves them for all tasks together: hashes sorted by task and value, and where those of each task begin.
    """

    type, name = "uncounted", "compare lines"

    def __init__(self, folder: Path, tasks: int):
        super().__init__()
        self._folder, self._tasks = folder, tasks

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> None:
        begin, end = ((2**64 * part // world_size) for part in (rank, rank + 1))
        slices = []
        for task in range(self._tasks):
            hashes = np.load(self._folder / f"{task:05d}.npy", mmap_mode="r")
            first = np.searchsorted(hashes, np.uint64(begin))
            last = len(hashes) if end == 2**64 else np.searchsorted(hashes, np.uint64(end))
            slices.append(np.array(hashes[first:last]))
        owned = np.cumsum([0, *map(len, slices)])
        hashes = np.concatenate(slices)
        order = np.argsort(hashes, kind="stable")  # equal hashes stay in the order of their tasks
        in_order = hashes[order]
        later = order[1:][in_order[1:] == in_order[:-1]]
        later.sort()
        _save(self._folder / f"part-{rank:05d}.npy", hashes[later])
        _save(self._folder / f"part-{rank:05d}.begins.npy", np.searchsorted(later, owned))


class RemoveLines(CountedStep):
    """Removes the lines of which an occurrence came before, in this task or an earlier one; counts them as lines_removed."""

    def __init__(self, folder: Path, *, examples: Path):
        super().__init__("duplicate lines", examples=examples)
        self._lines = folder

    def run(self, data, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        elsewhere = self._common_with_earlier_tasks(rank)
        repeated = np.load(self._lines / f"{rank:05d}.repeated.npy")
        seen = np.zeros(len(repeated), bool)
        for document in data:
            before = document.text
            self.count_in(before)
            with self.track_time():
                hashes = hash_lines(before)
                gone = _find(hashes, elsewhere) >= 0
                for line in np.flatnonzero((places := _find(hashes, repeated)) >= 0):
                    gone[line] |= seen[places[line]]
                    seen[places[line]] = True
                document.text = remove_lines(before, gone, hashes=hashes)
            self.stat_update("lines", value=len(gone))
            self.stat_update("lines_removed", value=int(gone.sum()))
            if document.text:
                yield self.keep(document, before=before)
            else:
                self.drop("no line of its own", name=document.id, text=before)
        self.save_examples(rank, tasks=world_size)

    def _common_with_earlier_tasks(self, rank: int) -> np.ndarray:
        """uint64, sorted."""
        found = []
        for file in sorted(self._lines.glob("part-?????.npy")):
            begins = np.load(file.with_suffix(".begins.npy"))
            found.append(np.array(np.load(file, mmap_mode="r")[begins[rank] : begins[rank + 1]]))
        return np.concatenate(found)


def _find(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """int64[values]: the place of each value in a sorted table of different values, or -1."""
    if not len(table):
        return np.full(len(values), -1)
    places = np.minimum(np.searchsorted(table, values), len(table) - 1)
    return np.where(table[places] == values, places, -1)


def _save(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_stream(file) as stream:
        np.save(stream, values)
