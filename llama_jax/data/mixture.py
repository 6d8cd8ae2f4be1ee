"""Which row comes when: a mixture of sources by token share, as a pure function of (sources, shares, seed, n)."""

from dataclasses import dataclass
from typing import NamedTuple

import grain
import numpy as np

from llama_jax.data.packing import TokenSource

WHOLE = 1 << 40
"""Shares are counted in parts of this."""


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
        self._weights = [max(round(share * WHOLE), 1) for share in self.shares]
        self._orders = [_order(len(source), hash_seed(seed, number)) for number, source in enumerate(sources)]

    @staticmethod
    def normalise(shares: list[float]) -> list[float]:
        """Shares that add up to 1."""
        return [share / sum(shares) for share in shares]

    def __getitem__(self, n: int) -> Row:
        before, after = self.counts(n), self.counts(n + 1)
        source = next(number for number, count in enumerate(after) if count > before[number])
        return Row(source, before[source], int(self._orders[source][before[source]]))

    def counts(self, rows: int) -> list[int]:
        """How many of the first `rows` rows each source gives: its share, to within a row or two.

        The first source takes its part of all rows, the second its part of what is left, and so on; integers, so that
        one more row is always one more row of exactly one source.
        """
        result, left = [], sum(self._weights)
        for weight in self._weights:
            rest = rows * (left - weight) // left
            result.append(rows - rest)
            rows, left = rest, left - weight
        return result

    def tokens(self, n: int) -> np.ndarray:
        """int32 (T + 1,) tokens of row n."""
        row = self[n]
        return self.sources[row.source].window(row.window)

    def ledger(self, rows: int) -> dict[str, Seen]:
        """What the first `rows` rows hold, by source name."""
        return {
            source.name: Seen(count * source.sequence_length, count / len(source))
            for source, count in zip(self.sources, self.counts(rows), strict=True)
        }


def _order(windows: int, seed: int) -> grain.MapDataset:
    """Endless windows of one source: shuffled anew each epoch, by arithmetic on the index alone."""
    return grain.MapDataset.range(windows).seed(seed).shuffle().repeat()


def hash_seed(*parts: int) -> int:
    """32 bits that depend on all parts."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
