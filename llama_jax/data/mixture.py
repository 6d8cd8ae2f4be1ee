"""Which row comes when: a mixture of sources by token share, as a pure function of (sources, shares, seed, n).

A run that goes on counts its rows from the position of its checkpoint; while nothing changes they are the rows that it would
have read without a stop.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from llama_jax.data.position import DataPosition
from llama_jax.data.reader import SourceReader
from llama_jax.data.windows import TokenRow, TokenSource

WHOLE = 1 << 40
"""Parts that shares are counted in."""


class RowOrigin(NamedTuple):
    """Where a row is from."""

    source: int
    index: int
    """How many rows of this source came before it."""
    window: int
    """Which window of the source; every window once an epoch, in an order of the epoch's own."""


@dataclass(frozen=True)
class SourceTotals:
    """What training has read of one source."""

    tokens: int
    epochs: float


class Mixture:
    """Row n after `position` for any n, without state. All rows are T tokens, so shares of rows are shares of tokens.

    Raises DataError where `position` speaks of other text than `sources` hold.
    """

    def __init__(self, sources: list[TokenSource], shares: list[float], *, seed: int, position: DataPosition | None = None):
        self.sources = sources
        self.shares = self.normalise(shares)
        self._weights = integer_shares(self.shares)
        self._start = position or DataPosition()
        self._readers = [SourceReader(source, progress, seed=seed)
                         for source, progress in zip(sources, self._start.take_up(sources), strict=True)]
        self._keys = tuple(reader.progress.key for reader in self._readers)
        same = (self._keys, tuple(self._weights)) == (self._start.keys, self._start.weights)
        self._rows = self._start.rows if same else 0
        self._before = split_rows(self._rows, self._weights)

    @staticmethod
    def normalise(shares: list[float]) -> list[float]:
        """Shares that add up to 1."""
        return [share / sum(shares) for share in shares]

    def _counts(self, rows: int) -> list[int]:
        """How many of the first `rows` rows each source gives."""
        counts = split_rows(self._rows + rows, self._weights)
        return [count - before for count, before in zip(counts, self._before, strict=True)]

    def _place(self, n: int) -> tuple[int, int]:
        """(number of the source, rows of it before) of row n."""
        before, after = self._counts(n), self._counts(n + 1)
        source = next(number for number, count in enumerate(after) if count > before[number])
        return source, before[source]

    def __getitem__(self, n: int) -> RowOrigin:
        source, index = self._place(n)
        return RowOrigin(source, index, self._readers[source].window(index))

    def row(self, n: int) -> TokenRow:
        """Row n."""
        source, index = self._place(n)
        return self.sources[source].row(self._readers[source].spans(index))

    def tokens(self, n: int) -> np.ndarray:
        """int32 (T + 1,) inputs of row n and its last target."""
        row = self.row(n)
        return np.append(row.tokens, row.targets[-1:])

    def position(self, rows: int) -> DataPosition:
        """What has been read once `rows` rows are."""
        read = [reader.after(count) for reader, count in zip(self._readers, self._counts(rows), strict=True)]
        others = [progress for progress in self._start.sources if progress.key not in self._keys]
        return DataPosition((*read, *others), self._keys, tuple(self._weights), self._rows + rows)

    def ledger(self, rows: int) -> dict[str, SourceTotals]:
        """What has been read once `rows` rows are, by source name."""
        return {progress.name: SourceTotals(progress.tokens, progress.epochs) for progress in self.position(rows).sources}


def integer_shares(shares: list[float]) -> list[int]:
    """Shares as integers, so that counts of any size are exact and the same everywhere."""
    return [max(round(share / sum(shares) * WHOLE), 1) for share in shares]


def split_rows(rows: int, weights: list[int]) -> list[int]:
    """How many of the first `rows` rows each source gives: its share to within a row a source.

    The first source takes its part of all rows, the second its part of what is left, and so on; one more row is always
    one more row of exactly one source.
    """
    result, left = [], sum(weights)
    for weight in weights:
        rest = rows * (left - weight) // left
        result.append(rows - rest)
        rows, left = rest, left - weight
    return result
