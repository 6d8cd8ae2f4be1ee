"""Documents that are clean already, without what also stands in evaluation sets (`llama_jax.clean.decontaminate`).

GPT-3 ignores n-grams that occur in more than 10 documents of the training data, so that the input is read twice: the first stage
counts n-grams of evaluation sets over all documents, the second cuts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from llama_jax.clean.decontaminate import (
    NgramIndex,
    build_ngram_index,
    count_documents,
    decontaminate,
    read_evaluation_texts,
)
from llama_jax.clean.items import Dropped, RawDocument
from llama_jax.clean.json_records import read_records
from llama_jax.clean.stages import Stage, Workplace
from llama_jax.clean.steps import CountedStep
from llama_jax.errors import ConfigError
from llama_jax.files.atomic import atomic_stream


def recipe(place: Workplace, options: Any) -> list[Stage]:
    """The stages that decontaminate documents; raises ConfigError without evaluation data, DataError where it holds none."""
    if not options.evaluation_data:
        raise ConfigError("documents are decontaminated and nothing else; name the folder of evaluation sets (that of eval.py "
                          "--data_dir) as --evaluation_data.")
    texts, _ = read_evaluation_texts(options.evaluation_data)
    index, counts = build_ngram_index(texts), place.folder("n-grams")
    cut = CutEvaluationText("decontaminate", index=index, counts=counts, examples=place.examples())
    return [place.stage("n-grams", place.read(read_documents_again), CountNgrams(index, counts)),
            place.stage("cut", place.read(read_documents_again), cut, place.write())]


def read_documents_again(file: Path) -> Iterator[RawDocument | Dropped]:
    """The documents of an output of `clean`, or of any JSON lines with `text`, with their metadata."""
    return read_records(file, _of_record)


def _of_record(record: dict[str, Any], number: int) -> RawDocument:
    if not isinstance(record.get("text"), str):
        raise Dropped("no `text`")
    metadata = record.get("metadata")
    return RawDocument(record["text"], str(record.get("id", number)), metadata if isinstance(metadata, dict) else {})


class CountNgrams(PipelineStep):
    """Counts, for every task, in how many documents each n-gram of the evaluation sets occurs."""

    type, name = "clean", "count n-grams"

    def __init__(self, index: NgramIndex, folder: Path):
        super().__init__()
        self._index, self._folder = index, folder

    def run(self, data, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        counts = count_documents((document.text for document in data), self._index)
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_stream(self._folder / f"{rank:05d}.npz") as stream:
            np.savez(stream, **{str(words): of_words for words, of_words in counts.items()})
        yield from ()


class CutEvaluationText(CountedStep):
    """Cuts what evaluation sets hold out of documents; each piece that is left is a document of its own."""

    def __init__(self, name: str, *, index: NgramIndex, counts: Path, examples: Path):
        super().__init__(name, examples=examples)
        self._index, self._counts = index, counts

    def run(self, data, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        index = self._index.without_frequent(self._counted())
        for document in data:
            self.count_in(document.text)
            pieces, hits = decontaminate(document.text, index)
            for name in hits:
                self.stat_update(f"documents with text of {name}")
            if not pieces:
                self.drop("text of evaluation sets", name=document.id, text=document.text)
            self.stat_update("further pieces of cut documents", value=max(0, len(pieces) - 1))
            for number, piece in enumerate(pieces):
                name = f"{document.id}/piece {number + 1}" if hits else document.id
                yield self.keep(Document(piece, name, metadata=document.metadata), before=document.text)
        self.save_examples(rank, tasks=world_size)

    def _counted(self) -> dict[int, np.ndarray]:
        """In how many documents of all tasks each n-gram occurs."""
        total = {words: np.zeros(len(hashes), np.int64) for words, hashes in self._index.hashes.items()}
        for file in sorted(self._counts.glob("*.npz")):
            with np.load(file) as counts:
                for words in total:
                    total[words] += counts[str(words)]
        return total
