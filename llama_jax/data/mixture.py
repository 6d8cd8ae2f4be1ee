"""A mixture of sources by token share: row n is a pure function of (sources, shares, seed, position, n).

A resumed run counts its rows from the data position in its checkpoint. While nothing in its config changes, they are the rows
that it would have read without the stop.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from llama_jax.data.position import DataPosition
from llama_jax.data.reader import SourceReader
from llama_jax.data.windows import TokenRow, TokenSource

_WHOLE = 1 << 40
"""The sum, up to rounding, of shares as integers."""


class RowOrigin(NamedTuple):
    """Where a row of a mixture comes from."""

    source: int
    """Number of the source."""
    index: int
    """How many rows of this source come before it."""
    window: int
    """Number of the window of the source. Each window comes once per epoch, in an order that differs between epochs."""


@dataclass(frozen=True)
class SourceTotals:
    """How much training has read of one source."""

    tokens: int
    epochs: float
    """How many times its text was read."""


class Mixture:
    """Rows 0, 1, 2, ... of a mixture after `position`, without state: any row can be read at any time.

    All rows have T tokens, so that shares of rows are shares of tokens.
    """

    def __init__(self, sources: list[TokenSource], shares: list[float], *, seed: int, position: DataPosition | None = None):
        """Mix `sources` by `shares`, which are normalised, from `position` on; None is the begin of a run.

        Raises DataError if a source holds other text than when it was read.
        """
        self.sources = sources
        self.shares = self.normalise(shares)
        self._weights = integer_shares(self.shares)
        self._start = position or DataPosition()
        self._readers = [SourceReader(source, progress, seed=seed)
                         for source, progress in zip(sources, self._start.match_sources(sources), strict=True)]
        self._keys = tuple(reader.progress.key for reader in self._readers)
        unchanged = (self._keys, tuple(self._weights)) == (self._start.keys, self._start.weights)
        self._rows_before = self._start.rows if unchanged else 0
        self._counts_before = split_rows(self._rows_before, self._weights)

    @staticmethod
    def normalise(shares: list[float]) -> list[float]:
        """Shares that add up to 1."""
        return [share / sum(shares) for share in shares]

    def _counts(self, rows: int) -> list[int]:
        """How many of the first `rows` rows come from each source."""
        counts = split_rows(self._rows_before + rows, self._weights)
        return [count - before for count, before in zip(counts, self._counts_before, strict=True)]

    def _place(self, n: int) -> tuple[int, int]:
        """(number of the source, how many rows of it come before) of row n."""
        before, after = self._counts(n), self._counts(n + 1)
        source = next(number for number, count in enumerate(after) if count > before[number])
        return source, before[source]

    def __getitem__(self, n: int) -> RowOrigin:
        source, index = self._place(n)
        return RowOrigin(source, index, self._readers[source].window(index))

    def row(self, n: int) -> TokenRow:
        """Row n of the mixture."""
        source, index = self._place(n)
        return self.sources[source].row(self._readers[source].spans(index))

    def tokens(self, n: int) -> np.ndarray:
        """int32 tokens of row n, its last target included, shape (T + 1,)."""
        row = self.row(n)
        return np.append(row.tokens, row.targets[-1:])

    def position(self, rows: int) -> DataPosition:
        """The data position after the first `rows` rows, for a checkpoint."""
        read = [reader.after(count) for reader, count in zip(self._readers, self._counts(rows), strict=True)]
        others = [progress for progress in self._start.sources if progress.key not in self._keys]
        return DataPosition((*read, *others), self._keys, tuple(self._weights), self._rows_before + rows)

    def ledger(self, rows: int) -> dict[str, SourceTotals]:
        """How much has been read of each source, by name, after the first `rows` rows."""
        return {progress.name: SourceTotals(progress.tokens, progress.epochs) for progress in self.position(rows).sources}


def integer_shares(shares: list[float]) -> list[int]:
    """Shares as integers of at least 1, so that row counts of any size are exact and the same on every machine."""
    return [max(round(share / sum(shares) * _WHOLE), 1) for share in shares]


def split_rows(rows: int, weights: list[int]) -> list[int]:
    """How many of the first `rows` rows come from each source: its share, to within one row per source.

    The first source takes its part of all rows, the second its part of the rows that are left, and so on. One more row is
    therefore always one more row of exactly one source.
    """
    result, left = [], sum(weights)
    for weight in weights:
        rest = rows * (left - weight) // left
        result.append(rows - rest)
        rows, left = rest, left - weight
    return result
