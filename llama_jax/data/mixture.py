"""Which row comes when: a mixture of sources by token share, as a pure function of (sources, shares, seed, n)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from llama_jax.data.packing import TokenSource
from llama_jax.data.shuffle import keys_of, shuffled

WHOLE = 1 << 40
"""Parts that shares are counted in."""


class Row(NamedTuple):
    """One row's origin."""

    source: int
    index: int
    """How many rows of this source came before it."""
    window: int
    """Which window of the source; every window once an epoch, in an order of the epoch's own."""


@dataclass(frozen=True)
class Seen:
    """What training has read of one source."""

    tokens: int
    epochs: float


class Mixture:
    """Row n for any n, without state. All rows are T tokens, so shares of rows are shares of tokens."""

    def __init__(self, sources: list[TokenSource], shares: list[float], seed: int):
        self.sources = sources
        self.shares = self.normalise(shares)
        self.seed = seed
        self._weights = weights_of(self.shares)

    @staticmethod
    def normalise(shares: list[float]) -> list[float]:
        """Shares that add up to 1."""
        return [share / sum(shares) for share in shares]

    def __getitem__(self, n: int) -> Row:
        before, after = split(n, self._weights), split(n + 1, self._weights)
        source = next(number for number, count in enumerate(after) if count > before[number])
        epoch, place = divmod(before[source], len(self.sources[source]))
        window = shuffled(place, len(self.sources[source]), keys_of(self.seed, source, epoch))
        return Row(source, before[source], window)

    def tokens(self, n: int) -> np.ndarray:
        """int32 (T + 1,) tokens of row n."""
        row = self[n]
        return self.sources[row.source].window(row.window)

    def ledger(self, rows: int) -> dict[str, Seen]:
        """What the first `rows` rows hold, by source name."""
        return {
            source.name: Seen(count * source.sequence_length, count / len(source))
            for source, count in zip(self.sources, split(rows, self._weights), strict=True)
        }


def weights_of(shares: list[float]) -> list[int]:
    """Shares as integers, so that counts of any size are exact and the same everywhere."""
    return [max(round(share / sum(shares) * WHOLE), 1) for share in shares]


def split(rows: int, weights: list[int]) -> list[int]:
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
