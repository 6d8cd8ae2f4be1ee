"""A prepared folder as one stream of tokens, cut into windows: each token is predicted once per epoch."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llama_jax.data.manifest import START_DTYPE, Manifest, read_manifest
from llama_jax.errors import DataError

_MOST_MAPPED = 64
"""Files of one source that are memory-mapped at one time, because each takes a file descriptor."""
_DIGEST_PLACES, _DIGEST_TOKENS = 64, 256
"""Evenly spaced places of a stream, and tokens at each, that the digest samples."""

Span = tuple[int, int]
"""(begin, end): the predictions of tokens begin + 1 .. end of a stream, each from the token before it."""


class TokenRow(NamedTuple):
    """One training sequence of T tokens; every field has shape (T,)."""

    tokens: np.ndarray
    """int32 inputs."""
    targets: np.ndarray
    """int32 next tokens."""
    starts: np.ndarray
    """bool; True where the input begins a segment: a document, or tokens that do not follow the input before."""
    predicted: np.ndarray
    """bool; False where the target begins another document or is padding, so that it has no loss."""


class TokenSource:
    """A prepared folder as ceil((tokens - 1) / T) windows of T + 1 tokens, of which neighbors share one.

    The last window is padded with BOS, which no loss counts.
    """

    def __init__(self, folder: str | Path, sequence_length: int):
        """Open the folder for rows of `sequence_length` (T) tokens.

        Raises DataError if the folder is damaged, or does not tell where its documents begin.
        """
        self.folder = Path(folder)
        self.name = self.folder.name
        self.sequence_length = sequence_length
        self.manifest: Manifest = read_manifest(self.folder)
        self._shards = self.manifest.shards
        self._offsets = np.cumsum([0] + [shard.tokens for shard in self._shards])
        self._map = lru_cache(_MOST_MAPPED)(lambda file, dtype: np.memmap(self.folder / file, dtype, "r"))
        self._documents = np.cumsum([0] + [shard.documents for shard in self._shards])
        self._inferred_starts: dict[int, np.ndarray] = {}
        self._checked_starts: set[int] = set()
        """Shards whose beginnings of documents were found to be in order."""
        if self.manifest.bos_id == self.manifest.eos_id:
            for number, shard in enumerate(self._shards):
                if not shard.starts:
                    self._inferred_starts[number] = self._infer_starts(number)

    def __len__(self) -> int:
        return -(-self.predictions // self.sequence_length)

    @property
    def predictions(self) -> int:
        """Tokens of the stream that have one before them, from which they are predicted."""
        return self.manifest.tokens - 1

    @property
    def predicted_per_byte(self) -> float:
        """Tokens with a loss (all but the first of each document) per byte of original text.

        Bits per byte are nats per token / ln 2 * this.
        """
        return (self.manifest.tokens - self.manifest.documents) / self.manifest.bytes

    @cached_property
    def digest(self) -> str:
        """A hash of the stream's totals and a sample of its tokens; it depends on neither the folder nor the shards' sizes."""
        m = self.manifest
        facts = [m.tokenizer_sha256, m.bos_id, m.eos_id, m.tokens, m.documents, m.bytes]
        hashed = hashlib.sha256(json.dumps(facts).encode())
        for n in range(_DIGEST_PLACES):
            begin = max(m.tokens - _DIGEST_TOKENS, 0) * n // (_DIGEST_PLACES - 1)
            hashed.update(self.read(begin, min(begin + _DIGEST_TOKENS, m.tokens))[0].tobytes())
        return hashed.hexdigest()

    def read(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens begin .. end - 1 of the stream (int32), and which of them begin a document (bool)."""
        tokens, starts = np.empty(end - begin, np.int32), np.zeros(end - begin, bool)
        number = int(np.searchsorted(self._offsets, begin, side="right")) - 1
        at = begin
        while at < end:
            first, last = int(self._offsets[number]), min(int(self._offsets[number + 1]), end)
            here = slice(at - begin, last - begin)
            tokens[here] = self._map(self._shards[number].file, self.manifest.dtype)[at - first : last - first]
            places = self._starts(number)
            if places is None:
                starts[here] = tokens[here] == self.manifest.bos_id
            else:
                some = places[np.searchsorted(places, at - first) : np.searchsorted(places, last - first)]
                starts[some + (first - begin)] = True
            at, number = last, number + 1
        return tokens, starts

    def documents_before(self, places: np.ndarray) -> np.ndarray:
        """How many documents begin before each of some places of the stream (int64, in any order)."""
        order = np.argsort(places)
        ordered = places[order]
        edges = np.searchsorted(ordered, self._offsets)  # places from edges[n] on are in shard n
        counts = np.repeat(self._documents, np.diff(edges, append=len(places)))
        for number in np.flatnonzero(np.diff(edges)).tolist():
            here = slice(edges[number], edges[number + 1])
            counts[here] += np.searchsorted(self._document_places(number), ordered[here] - self._offsets[number])
        result = np.empty_like(counts)
        result[order] = counts
        return result

    def row(self, spans: Sequence[Span]) -> TokenRow:
        """The predictions of `spans`, one after the other, padded to T; each span begins a segment of its own."""
        missing = self.sequence_length - sum(end - begin for begin, end in spans)
        fields: list[list[np.ndarray]] = [[], [], [], []]
        for number, (begin, end) in enumerate(spans):
            tokens, starts = self.read(begin, end + 1)
            if missing and number == len(spans) - 1:
                tokens = np.append(tokens, np.full(missing, self.manifest.bos_id, np.int32))
                starts = np.append(starts, np.full(missing, True))
            predicted = ~starts[1:]
            starts[0] |= number > 0
            for field, part in zip(fields, (tokens[:-1], tokens[1:], starts[:-1], predicted), strict=True):
                field.append(part)
        return TokenRow(*map(np.concatenate, fields))

    def window(self, index: int) -> np.ndarray:
        """int32 tokens of window `index`, shape (T + 1,)."""
        row = self.row([self.span(index)])
        return np.append(row.tokens, row.targets[-1:])

    def span(self, index: int) -> Span:
        """The predictions of window `index`."""
        begin = index * self.sequence_length
        return begin, min(begin + self.sequence_length, self.predictions)

    def check_fits(self, tokenizer_sha256: str, vocab_size: int) -> None:
        """Raise DataError if the shards were made with another tokenizer than the run's, or have ids that its model lacks."""
        m = self.manifest
        if m.vocab_size > vocab_size:
            raise DataError(f"{self.folder} was tokenised with {m.vocab_size} pieces but model.vocab_size is "
                            f"{vocab_size}; set --model.vocab_size {m.vocab_size} or prepare it again.")
        if m.tokenizer_sha256 != tokenizer_sha256:
            raise DataError(f"{self.folder} was made with another tokenizer (sha256 {m.tokenizer_sha256[:12]}, this "
                            f"run's is {tokenizer_sha256[:12]}); prepare it again or set --data.tokenizer.")

    def _starts(self, number: int) -> np.ndarray | None:
        """Where documents begin in a shard; None where every BOS begins one (shards of earlier versions, if BOS is not EOS)."""
        shard = self._shards[number]
        if not shard.starts:
            return self._inferred_starts.get(number)
        places = self._map(shard.starts, START_DTYPE)
        if number not in self._checked_starts:
            ascending = bool(np.all(places[1:] > places[:-1]))
            if len(places) and not (ascending and places[0] >= 0 and places[-1] < shard.tokens):
                raise DataError(f"{self.folder / shard.starts} is damaged: the beginnings of documents do not ascend within the "
                                f"{shard.tokens} tokens of its shard; remove {self.folder} and prepare it again, or copy the "
                                "file anew.")
            self._checked_starts.add(number)
        return places

    def _document_places(self, number: int) -> np.ndarray:
        """Where documents begin in a shard; in shards of earlier versions, which do not say so, they are looked for once."""
        places = self._starts(number)
        if places is None:
            tokens = self._map(self._shards[number].file, self.manifest.dtype)
            places = self._inferred_starts[number] = np.flatnonzero(tokens == self.manifest.bos_id)
        return places

    def _infer_starts(self, number: int) -> np.ndarray:
        """Where documents begin in a shard of an earlier version whose BOS and EOS are one token.

        Each document has that token at either end, so every second one begins a document. If texts contain the token too, a
        document begins where one follows another at once. One of the two rules must give as many places as there are documents.
        """
        shard = self._shards[number]
        marks = np.flatnonzero(self._map(shard.file, self.manifest.dtype) == self.manifest.bos_id)
        adjacent = np.append([0], marks[1:][np.diff(marks) == 1])
        if len(marks) == 2 * shard.documents:
            return marks[::2]
        if len(adjacent) == shard.documents:
            return adjacent
        raise DataError(f"{self.folder / shard.file} does not tell where its documents begin (its BOS and EOS are one token, "
                        f"{self.manifest.bos_id}, which its texts hold too); remove {self.folder} and prepare it again.")
