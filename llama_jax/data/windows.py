"""Token streams cut into rows: each token of a prepared folder is predicted once an epoch."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llama_jax.data.manifest import START_DTYPE, Manifest, read_manifest
from llama_jax.errors import DataError

MAPPED = 64
"""Files of one source that are mapped at one time: each takes a file descriptor."""
SAMPLES, SAMPLE = 64, 256
"""Places of a stream, evenly apart, and tokens at each of them, that tell it from another one."""

Span = tuple[int, int]
"""(begin, end): the predictions of tokens begin + 1 .. end of a stream, each from the token before it."""


class TokenRow(NamedTuple):
    """One training sequence; every field is (T,)."""

    tokens: np.ndarray
    """int32 inputs."""
    targets: np.ndarray
    """int32 next tokens."""
    starts: np.ndarray
    """bool; the input begins a document, or is not what follows the input before it."""
    predicted: np.ndarray
    """bool; False where the target begins another document or is padding."""


class TokenSource:
    """A prepared folder as ceil((tokens - 1) / T) windows of T + 1 tokens; neighbours share one token.

    The last window is filled up with BOS, which nothing predicts. Raises DataError for a folder that is damaged, or does not
    tell where its documents begin.
    """

    def __init__(self, folder: str | Path, sequence_length: int):
        self.folder = Path(folder)
        self.name = self.folder.name
        self.sequence_length = sequence_length
        self.manifest: Manifest = read_manifest(self.folder)
        self._shards = self.manifest.shards
        self._offsets = np.cumsum([0] + [shard.tokens for shard in self._shards])
        self._map = lru_cache(MAPPED)(lambda file, dtype: np.memmap(self.folder / file, dtype, "r"))
        self._worked_out = {}
        if self.manifest.bos_id == self.manifest.eos_id:
            self._worked_out = {number: self._starts_by_order(number) for number, shard in enumerate(self._shards)
                                if not shard.starts}

    def __len__(self) -> int:
        return -(-self.predictions // self.sequence_length)

    @property
    def predictions(self) -> int:
        """Tokens that follow another one."""
        return self.manifest.tokens - 1

    @property
    def predicted_per_byte(self) -> float:
        """Predicted tokens (all but each document's first) a byte of original text.

        Bits a byte = nats a token / ln 2 * this.
        """
        return (self.manifest.tokens - self.manifest.documents) / self.manifest.bytes

    @cached_property
    def digest(self) -> str:
        """What tells this stream from another: its totals and a sample of its tokens, whatever its folder and its shards."""
        m = self.manifest
        facts = [m.tokenizer_sha256, m.bos_id, m.eos_id, m.tokens, m.documents, m.bytes]
        hashed = hashlib.sha256(json.dumps(facts).encode())
        for n in range(SAMPLES):
            begin = max(m.tokens - SAMPLE, 0) * n // (SAMPLES - 1)
            hashed.update(self.read(begin, min(begin + SAMPLE, m.tokens))[0].tobytes())
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

    def row(self, spans: Sequence[Span]) -> TokenRow:
        """The predictions of `spans`, one after the other, filled up to T; each span begins a segment of its own."""
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
        """int32 (T + 1,) tokens of window `index`."""
        row = self.row([self.span(index)])
        return np.append(row.tokens, row.targets[-1:])

    def span(self, index: int) -> Span:
        """The predictions of window `index`."""
        begin = index * self.sequence_length
        return begin, min(begin + self.sequence_length, self.predictions)

    def check(self, tokenizer_sha256: str, vocab_size: int) -> None:
        """Raise DataError where the shards were made by another tokenizer than the run's."""
        m = self.manifest
        if m.vocab_size > vocab_size:
            raise DataError(f"{self.folder} was tokenised with {m.vocab_size} pieces but model.vocab_size is "
                            f"{vocab_size}; set --model.vocab_size {m.vocab_size} or prepare it again.")
        if m.tokenizer_sha256 != tokenizer_sha256:
            raise DataError(f"{self.folder} was made with another tokenizer (sha256 {m.tokenizer_sha256[:12]}, this "
                            f"run's is {tokenizer_sha256[:12]}); prepare it again or set --data.tokenizer.")

    def _starts(self, number: int) -> np.ndarray | None:
        """Where documents begin in a shard; None where a comparison with BOS tells it (older shards, BOS is not EOS)."""
        if file := self._shards[number].starts:
            return self._map(file, START_DTYPE)
        return self._worked_out.get(number)

    def _starts_by_order(self, number: int) -> np.ndarray:
        """Where documents begin in an older shard whose BOS and EOS are one token.

        Each document has one at either end, so every other one is a beginning; where texts hold the token as well, a
        beginning is what follows an end at once. One of the two must give as many as there are documents.
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
