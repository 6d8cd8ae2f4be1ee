"""Decontamination: what also stands in an evaluation set is cut out of documents (GPT-3, arXiv 2005.14165, appendix C).

    texts, missing = read_evaluation_texts("data/eval")
    index = build_ngram_index(texts)
    index = index.without_frequent(count_documents(corpus, index))       one pass over the corpus
    pieces, hits = decontaminate(text, index)                            for every document

A word is what white space separates, in lower case and without punctuation; an n-gram is 13 words in succession.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from llama_jax.errors import DataError
from llama_jax.evaluation.data import MissingDataFile, OfficialFiles
from llama_jax.evaluation.task import LikelihoodRequest, ModelRequest, Settings, Task
from llama_jax.evaluation.tasks.catalogue import all_tasks

NGRAM_WORDS = 13
FEWEST_WORDS = 8
"""Words of the shortest text that is searched for; one of fewer than 13 words is searched for as a whole."""
WINDOW = 200
"""Characters that are removed on either side of a match."""
SHORTEST_PIECE = 200
"""Characters of the shortest piece of a cut document that is kept."""
MOST_PIECES = 10
"""A document that falls into more pieces than this is dropped."""
MOST_DOCUMENTS = 10
"""An n-gram that occurs in more documents of the corpus than this is a common phrase, and is ignored."""

_NO_WORD = re.compile(r"[^\w\s]+|_+")
_VARIANT = re.compile(r"_(\d+shot|maj1|basic|respectful|\d+)$")
"""The end of a task's name that tells it from other tasks on the same records: shots, samples, prompts."""
_OF_USER = "perplexity"
"""The task that measures files of the user's choice, and so has no evaluation set."""
_WEIGHTS = np.frombuffer(hashlib.shake_256(b"n-grams").digest(8 * NGRAM_WORDS), np.uint64) | np.uint64(1)
"""Odd factors of the words of an n-gram in its hash."""


class EvaluationText(NamedTuple):
    """A text of an evaluation set that no document should hold."""

    set_name: str
    text: str
    whole: bool
    """Whether it is searched for as a whole where it has 8 to 12 words: a question is, one of the choices below it is not."""


def read_evaluation_texts(data_dir: Path | str) -> tuple[list[EvaluationText], list[str]]:
    """Everything that the project's evaluation tasks show to a model and score, and the sets whose files are missing.

    The texts of an item are all strings of its record (passage, question, choices, answers, solution, tests) and the text of
    each of its requests without worked examples, in which these stand together as a model reads them: a sentence with either
    option in its blank, a context with each ending.

    Raises:
        DataError: a file is damaged, or `data_dir` holds no set at all.
    """
    settings = Settings(num_fewshot=0)
    tasks: dict[str, Task] = {}
    for name, task in all_tasks().items():
        if name != _OF_USER:
            tasks.setdefault(_VARIANT.sub("", name), task)
    texts, missing = [], []
    for name, task in tasks.items():
        try:
            records = task.read(OfficialFiles(data_dir, task.origin), settings)
        except MissingDataFile:
            missing.append(name)
            continue
        for record in records.test:
            texts += [EvaluationText(name, text, not listed) for text, listed in _strings(record)]
        for item in task.build(records, settings):
            texts += [EvaluationText(name, _text_of(request), True) for request in item.requests]
    if not texts:
        raise DataError(f"{data_dir} holds no evaluation set; name the folder that eval.py takes as --data_dir.")
    return list(dict.fromkeys(texts)), missing


def _strings(value: Any, listed: bool = False) -> Iterator[tuple[str, bool]]:
    """(string, whether it is in a list) of every string in a JSON value."""
    if isinstance(value, str):
        yield value, listed
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner, listed)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, True)


def _text_of(request: ModelRequest) -> str:
    return request.context + request.continuation if isinstance(request, LikelihoodRequest) else request.text


def split_words(text: str) -> list[str]:
    """The words of a text: lower case, without punctuation, separated by white space."""
    return _NO_WORD.sub("", text.lower()).split()


def word_spans(text: str) -> list[tuple[int, int]]:
    """(begin, end) in characters of each of `split_words`, with the punctuation that touches it."""
    return [match.span() for match in re.finditer(r"\S+", text) if _NO_WORD.sub("", match[0].lower())]


def _hash_words(words: Iterable[str]) -> np.ndarray:
    return np.array([crc32(word.encode(errors="replace")) for word in words], np.uint64)


@dataclass(frozen=True)
class NgramIndex:
    """The n-grams of evaluation sets as sorted hashes, which many processes can hold: 16 bytes per n-gram."""

    sets: tuple[str, ...]
    """Names of the evaluation sets, at most 64."""
    hashes: Mapping[int, np.ndarray]
    """By number of words: uint64 of shape (n-grams,), ascending."""
    members: Mapping[int, np.ndarray]
    """By number of words: for each of the hashes, a uint64 whose bit i says whether set i has the n-gram."""

    def find(self, words: list[str]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Where n-grams of the index occur in a text: number of words -> (index of the first word, index in `hashes`).

        Hashes of 64 bits are compared, not words. Two n-grams that differ in one word have the same hash if that word's 32-bit
        checksum is the same, and others with a probability of 2^-64.
        """
        found, hashed = {}, _hash_words(words)
        sums = np.zeros_like(hashed)
        for number in range(1, min(NGRAM_WORDS, len(words)) + 1):
            first = len(words) - number + 1
            sums = sums[:first] + _WEIGHTS[number - 1] * hashed[number - 1:]
            known = self.hashes.get(number)
            if known is not None:
                places = np.minimum(np.searchsorted(known, sums), len(known) - 1)
                starts = np.flatnonzero(known[places] == sums)
                if len(starts):
                    found[number] = starts, places[starts]
        return found

    def without_frequent(self, counts: Mapping[int, np.ndarray], most: int = MOST_DOCUMENTS) -> "NgramIndex":
        """The index without n-grams that occur in more than `most` documents, as `count_documents` counted them.

        GPT-3 ignores those because most are common phrases and boilerplate that a model should learn.
        """
        rare = {number: counts[number] <= most for number in self.hashes}
        kept = [number for number in self.hashes if rare[number].any()]
        return replace(self, hashes={number: self.hashes[number][rare[number]] for number in kept},
                       members={number: self.members[number][rare[number]] for number in kept})


def build_ngram_index(texts: Iterable[EvaluationText]) -> NgramIndex:
    """Index every 13-gram of the texts, and whole texts of 8 to 12 words; shorter ones would be found everywhere.

    Left out are n-grams of which fewer than half of the words have a letter: 1 2 3 ... 13 stands in calendars, too.
    """
    bits: dict[str, int] = {}
    table: dict[int, dict[int, int]] = {}
    for text in texts:
        bit = 1 << bits.setdefault(text.set_name, len(bits))
        words = split_words(text.text)
        number = min(len(words), NGRAM_WORDS)
        if number == NGRAM_WORDS or (text.whole and number >= FEWEST_WORDS):
            members = table.setdefault(number, {})
            for value in _hashes_of_ngrams(words, number):
                members[value] = members.get(value, 0) | bit
    assert len(bits) <= 64, "the members of a set are bits of 64"
    hashes = {number: np.array(sorted(members), np.uint64) for number, members in sorted(table.items()) if members}
    return NgramIndex(tuple(bits), hashes, {
        number: np.array([table[number][value] for value in known.tolist()], np.uint64) for number, known in hashes.items()})


def _hashes_of_ngrams(words: list[str], number: int) -> list[int]:
    """Hashes of the n-grams of a text that have enough words with a letter."""
    windows = sliding_window_view(_hash_words(words), number)
    lettered = sliding_window_view(np.array([any(map(str.isalpha, word)) for word in words]), number)
    return (windows * _WEIGHTS[:number]).sum(1)[2 * lettered.sum(1) >= number].tolist()


def count_documents(texts: Iterable[str], index: NgramIndex) -> dict[int, np.ndarray]:
    """In how many of the texts each n-gram of the index occurs, by number of words; counts of parts of a corpus may be added."""
    counts = {number: np.zeros(len(known), np.int64) for number, known in index.hashes.items()}
    for text in texts:
        for number, (_, entries) in index.find(split_words(text)).items():
            counts[number][np.unique(entries)] += 1
    return counts


class Decontaminated(NamedTuple):
    """What is left of a document."""

    pieces: list[str]
    """The document itself where nothing matched; nothing where it is dropped."""
    hits: dict[str, int]
    """Matching n-grams by evaluation set."""


def decontaminate(text: str, index: NgramIndex) -> Decontaminated:
    """Cut n-grams of the index out of a document, with 200 characters on either side, and drop pieces below 200 characters.

    A document that the cuts split into more than 10 pieces, short ones counted, is dropped.
    """
    found = index.find(split_words(text))
    if not found:
        return Decontaminated([text], {})
    hits, spans, cuts = Counter[str](), word_spans(text), []
    for number, (starts, entries) in found.items():
        for start, members in zip(starts.tolist(), index.members[number][entries].tolist(), strict=True):
            cuts.append((spans[start][0] - WINDOW, spans[start + number - 1][1] + WINDOW))
            hits.update(name for bit, name in enumerate(index.sets) if members >> bit & 1)
    pieces = _between(text, sorted(cuts))
    if len(pieces) > MOST_PIECES:
        pieces = []
    return Decontaminated([piece for piece in pieces if len(piece.strip()) >= SHORTEST_PIECE], dict(hits))


def _between(text: str, cuts: list[tuple[int, int]]) -> list[str]:
    """What is left of a text without the spans `cuts`, which are sorted and may overlap."""
    pieces, place = [], 0
    for begin, end in cuts:
        if begin > place:
            pieces.append(text[place:begin])
        place = max(place, end)
    return [*pieces, text[place:]] if place < len(text) else pieces


class Decontaminator:
    """Decontaminates documents one after another and counts what that did, over all documents and by evaluation set."""

    def __init__(self, index: NgramIndex):
        self.index = index
        self.documents, self.cut, self.dropped, self.removed_characters = 0, 0, 0, 0
        self.documents_by_set, self.ngrams_by_set = Counter[str](), Counter[str]()

    def __call__(self, text: str) -> list[str]:
        """The pieces of a document, see `decontaminate`."""
        pieces, hits = decontaminate(text, self.index)
        self.documents += 1
        self.cut += bool(hits and pieces)
        self.dropped += not pieces
        self.removed_characters += len(text) - sum(map(len, pieces))
        self.documents_by_set.update(hits.keys())
        self.ngrams_by_set.update(hits)
        return pieces

    def report(self) -> dict[str, Any]:
        """The counts, as JSON; a set without a match is in it, with zeros."""
        by_set = {name: {"documents": self.documents_by_set[name], "ngrams": self.ngrams_by_set[name]}
                  for name in self.index.sets}
        return {"documents": self.documents, "cut": self.cut, "dropped": self.dropped,
                "removed_characters": self.removed_characters, "sets": by_set}
