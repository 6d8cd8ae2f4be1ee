"""Of what occurs more than once in all documents, the first stays: whole documents, or any parts of them that have a key.

Keys are hashed to 128 bits and sorted in buckets, as datatrove's own deduplication does; this one keeps the first in the order
of the input, so that the output does not depend on workers, and its filter sees every task, also those without duplicates.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from llama_jax.clean.items import Dropped
from llama_jax.clean.stages import Stage, Workplace
from llama_jax.clean.steps import CountedStep
from llama_jax.files.atomic import write_atomic

Keys = Callable[[str], list[str]]
"""text -> the key of each of its parts, in order; parts are the same where their keys are."""
DropParts = Callable[[str, list[int]], str]
"""(text, numbers of the parts that occurred before) -> the text that is kept; raises Dropped for a document that is not."""

BUCKET_BYTES = 1 << 30
"""Bytes of input for each bucket of keys, one of which is sorted in memory at a time."""
_FLUSH_BYTES = 1 << 16
_KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("document", "<u4"), ("part", "<u4")])


def find_duplicates(
    place: Workplace, name: str, *steps: PipelineStep, keys: Keys, drop: DropParts,
) -> tuple[list[Stage], list[PipelineStep]]:
    """Take from all documents what occurred before.

    Args:
        place: where the stages work.
        name: of the step that drops, and the begin of the names of the stages.
        steps: what comes before, the first of which reads.
        keys: the keys of a text.
        drop: what is done to a text of which some parts occurred before.

    Returns:
        (stages that run `steps` and find what occurs again, the steps that begin the next stage: they read and drop).
    """
    buckets = max(1, min(sum(file.bytes for file in place.files) // BUCKET_BYTES, 1_000))
    folder, before = place.folder(f"{name} keys"), f"{name} before"
    stages = [place.stage(f"{name} keys", *steps, place.write(before), WriteKeys(folder, keys=keys, buckets=buckets)),
              place.stage(f"{name} sort", FindRepeated(folder), tasks=buckets)]
    return stages, [place.read_again(before), DropRepeated(name, folder=folder, drop=drop, examples=place.examples())]


def drop_whole(text: str, parts: list[int]) -> str:
    """The `drop` of documents that are one part each."""
    raise Dropped("duplicate")


class WriteKeys(PipelineStep):
    """Writes the hashed keys of all documents, with the place of each, into a file per bucket and task."""

    type, name = "duplicates", "write keys"

    def __init__(self, folder: Path, *, keys: Keys, buckets: int):
        super().__init__()
        self._folder, self._keys, self._buckets = folder, keys, buckets

    def run(self, data, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        files: dict[int, bytearray] = {bucket: bytearray() for bucket in range(self._buckets)}
        for file in self._folder.glob(f"*/{rank:05d}.keys"):
            file.unlink()  # of an attempt that was interrupted
        for number, document in enumerate(data):
            for part, key in enumerate(self._keys(document.text)):
                digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()
                bucket = int.from_bytes(digest[:8], "little") % self._buckets
                files[bucket] += digest + number.to_bytes(4, "little") + part.to_bytes(4, "little")
                if len(files[bucket]) > _FLUSH_BYTES:
                    self._append(bucket, files[bucket], rank=rank)
            yield document
        for bucket, content in files.items():
            self._append(bucket, content, rank=rank)

    def _append(self, bucket: int, content: bytearray, *, rank: int) -> None:
        if content:
            file = self._folder / f"{bucket:03d}" / f"{rank:05d}.keys"
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("ab") as stream:
                stream.write(content)
            content.clear()


class FindRepeated(PipelineStep):
    """Sorts the keys of one bucket, and writes for every task the parts whose key occurred before in the order of the input."""

    type, name = "duplicates", "sort keys"

    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> None:
        files = sorted((self._folder / f"{rank:03d}").glob("*.keys"))
        if not files:
            return
        contents = [np.fromfile(file, _KEY) for file in files]
        keys = np.concatenate(contents)
        order = np.lexsort((keys["low"], keys["high"]))  # stable: equal keys stay in the order of the input
        ordered = keys[order]
        same = (ordered["high"][1:] == ordered["high"][:-1]) & (ordered["low"][1:] == ordered["low"][:-1])
        repeated = np.zeros(len(keys), bool)
        repeated[order[1:][same]] = True
        begin = 0
        for file, content in zip(files, contents, strict=True):
            chosen = content[repeated[begin:begin + len(content)]]
            begin += len(content)
            places = np.stack([chosen["document"], chosen["part"]], axis=1)
            write_atomic(file.with_suffix(".repeated"), places.astype("<u4").tobytes())


class DropRepeated(CountedStep):
    """Takes from every document the parts that occurred before."""

    def __init__(self, name: str, *, folder: Path, drop: DropParts, examples: Path):
        super().__init__(name, examples=examples)
        self._folder, self._drop = folder, drop

    def run(self, data, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        repeated = self._repeated(rank)
        for number, document in enumerate(data):
            before = document.text
            self.count_in(before)
            try:
                if number in repeated:
                    document.text = self._drop(before, sorted(repeated[number]))
            except Dropped as dropped:
                self.drop(str(dropped), name=document.id, text=before)
            else:
                yield self.keep(document, before=before)
        self.save_examples(rank, tasks=world_size)

    def _repeated(self, rank: int) -> dict[int, list[int]]:
        """Number of a document of this task -> its parts that occurred before."""
        found: dict[int, list[int]] = defaultdict(list)
        for file in sorted(self._folder.glob(f"*/{rank:05d}.repeated")):
            for document, part in np.fromfile(file, "<u4").reshape(-1, 2).tolist():
                found[document].append(part)
        return found
