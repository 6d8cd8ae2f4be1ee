"""Each book once (paper, section 2.1: "removing books with more than 90% content overlap"), by datatrove's MinHash.

MinHash finds candidates; whether two of them overlap is then counted exactly, so that no book is dropped by a hash's chance.
"""

import json
import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig
from datatrove.utils.text import TextNormConfig
from datatrove.utils.word_tokenizers import WordTokenizer

from llama_jax.clean.stages import Stage, Workplace
from llama_jax.clean.steps import CountedStep, ReadDocuments
from llama_jax.files.atomic import write_atomic

MOST_OVERLAP = 0.9
"""Share of the longer book's shingles that another book may hold."""
MINHASH = MinhashConfig(n_grams=5, num_buckets=26, hashes_per_bucket=8, hash_config=HashConfig(hash_fc="sha1"),
                        norm_config=TextNormConfig(norm_numbers=False))  # tables that differ in their numbers are different books
"""Shingles of five words, and how often minima must agree. Books of one length that share 90% of their shingles have a Jaccard
similarity s of 0.9 / 1.1 = 0.82, and are candidates with probability 1 - (1 - s^8)^26 = 99.7%; at 70% (s = 0.54) 17% are."""
_SHINGLES_AT_ONCE = 1 << 10


def overlap_stages(place: Workplace, *steps: PipelineStep) -> list[Stage]:
    """Stages that run `steps`, the first of which reads, and keep of documents that overlap by more than 90% the first one."""
    signatures, pairs, verdicts = place.folder("signatures"), place.folder("pairs"), place.folder("verdicts")
    return [
        place.stage("signatures", *steps, place.write("documents"), WriteSignatures(str(signatures))),
        place.stage("candidates", MinhashDedupBuckets(str(signatures), str(pairs), config=MINHASH), tasks=MINHASH.num_buckets),
        place.stage("verdicts", JudgeOverlap(place, pairs=pairs, verdicts=verdicts), tasks=1),
        place.stage("overlap", place.read_again("documents"),
                    DropOverlap("overlap", verdicts=verdicts, examples=place.examples()), place.write()),
    ]


class _Words(WordTokenizer):
    """Words of any language for datatrove's MinHash: runs of letters and digits, and each character of Chinese and Japanese."""

    _WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")

    def word_tokenize(self, text: str) -> list[str]:
        words = self._WORD.findall(text)
        return words + [""] * (MINHASH.n_grams - len(words)) if words else []  # a text of fewer words is one shingle

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in self._WORD.finditer(text)]


class WriteSignatures(MinhashDedupSignature):
    """datatrove's signatures of documents, whose memory does not grow with the number of hashes times the length."""

    def __init__(self, folder: str):
        super().__init__(folder, MINHASH, language=_Words())

    def get_signature(self, shingles: np.ndarray) -> list[list[int]]:
        parts = [super(WriteSignatures, self).get_signature(shingles[begin:begin + _SHINGLES_AT_ONCE])
                 for begin in range(0, len(shingles), _SHINGLES_AT_ONCE)]
        return np.min(np.array(parts, np.uint64), axis=0).tolist()


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Share of the longer one's shingles that both hold; the arguments are sorted and hold no shingle twice.

    The longer one counts, so that a story does not fall to the collection that holds it, nor a collection to its first story.
    """
    return np.intersect1d(first, second, assume_unique=True).size / max(first.size, second.size, 1)


class JudgeOverlap(PipelineStep):
    """Reads the documents in order, and decides which of the candidates overlap with one before them that is kept."""

    type, name = "clean", "judge"

    def __init__(self, place: Workplace, *, pairs: Path, verdicts: Path):
        super().__init__()
        self._documents, self._tasks = place.folder("documents"), place.tasks
        self._pairs, self._verdicts, self._shingles = pairs, verdicts, place.folder("shingles")
        self._signatures = WriteSignatures(str(place.folder("signatures")))

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> None:
        groups = candidate_groups(self._pairs)
        kept: dict[int, list[tuple[Path, str]]] = defaultdict(list)  # group -> the shingles' file and id of each member
        self._shingles.mkdir(parents=True, exist_ok=True)
        self._verdicts.mkdir(parents=True, exist_ok=True)
        for task in range(self._tasks):
            verdicts = {}
            for index, document in enumerate(ReadDocuments(self._documents).run(rank=task)):
                if (task, index) not in groups:
                    continue
                shingles = np.unique(self._signatures.get_shingles(document.text))
                others = dict.fromkeys(other for group in groups[task, index] for other in kept[group])
                same = next((name for file, name in others if overlap(np.load(file), shingles) > MOST_OVERLAP), None)
                if same is not None:
                    verdicts[index] = same
                    continue
                file = self._shingles / f"{task:05d}.{index}.npy"
                np.save(file, shingles)
                for group in groups[task, index]:
                    kept[group].append((file, document.id))
            write_atomic(self._verdicts / f"{task:05d}.json", json.dumps(verdicts).encode())


def candidate_groups(folder: Path) -> dict[tuple[int, int], list[int]]:
    """The groups in which MinHash puts each document, (task, place in the task's file) -> numbers of groups.

    A file of datatrove has the documents of each group as pairs of neighbours: (first, second), (second, third) ...
    """
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    number = 0
    for file in sorted(folder.glob("*.dups")):
        last = None
        for first_task, first, second_task, second in struct.iter_unpack("<4I", file.read_bytes()):
            if last != (first_task, first):
                number += 1
                groups[first_task, first].append(number)
            last = (second_task, second)
            groups[last].append(number)
    return groups


class DropOverlap(CountedStep):
    """Drops the documents that overlap with an earlier one; their examples name the one that is kept."""

    def __init__(self, name: str, *, verdicts: Path, examples: Path):
        super().__init__(name, examples=examples)
        self._verdicts = verdicts

    def run(self, data, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        verdicts = json.loads((self._verdicts / f"{rank:05d}.json").read_text())
        for index, document in enumerate(data):
            self.count_in(document.text)
            if same := verdicts.get(str(index)):
                self.drop(f"more than {MOST_OVERLAP:.0%} overlap", name=f"{document.id}; kept is {same}", text=document.text)
            else:
                yield self.keep(document, before=document.text)
        self.save_examples(rank)
