"""Which row comes when: a mixture of sources by token share, as a pure function of (sources, shares, seed, n)."""

from dataclasses import dataclass
from typing import NamedTuple

import grain
import numpy as np

from llama_jax.data.packing import TokenSource


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
        streams = [_stream(number, len(source), seed) for number, source in enumerate(sources)]
        self._rows = grain.MapDataset.mix(streams, self.shares)

    @staticmethod
    def normalise(shares: list[float]) -> list[float]:
        """Shares that add up to 1."""
        return [share / sum(shares) for share in shares]

    def __getitem__(self, n: int) -> Row:
        return self._rows[n]

    def tokens(self, n: int) -> np.ndarray:
        """int32 (T + 1,) tokens of row n."""
        row = self[n]
        return self.sources[row.source].window(row.window)

    def ledger(self, rows: int) -> dict[str, Seen]:
        """What the first `rows` rows hold, by source name."""
        missing, n = set(range(len(self.sources))), rows - 1
        counts = [0] * len(self.sources)
        while missing and n >= 0:  # back to the last row of each source: about 1 / its share
            row = self[n]
            if row.source in missing:
                missing.discard(row.source)
                counts[row.source] = row.index + 1
            n -= 1
        return {
            source.name: Seen(count * source.sequence_length, count / len(source))
            for source, count in zip(self.sources, counts, strict=True)
        }


def _stream(number: int, windows: int, seed: int) -> grain.MapDataset:
    """The endless rows of one source: shuffled anew each epoch, by arithmetic on the index alone."""
    order = grain.MapDataset.range(windows).seed(hash_seed(seed, number)).shuffle().repeat()
    return order.map_with_index(lambda index, window: Row(number, int(index), int(window)))


def hash_seed(*parts: int) -> int:
    """32 bits that depend on all parts."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
