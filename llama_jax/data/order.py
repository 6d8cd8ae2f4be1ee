"""The order in which one epoch of a source is read: its text cut into windows, shuffled.

Where the length of a row changes in the midst of an epoch, what is left of it, in the order of the text, is cut and
shuffled anew: nothing is read twice and nothing left out, and rows are as contiguous as what is left allows.
"""

from typing import NamedTuple

import numpy as np

from llama_jax.data.permutation import first_permuted, permuted
from llama_jax.data.windows import Span


class SpanSet(NamedTuple):
    """Predictions of a stream (see `Span`) as contiguous runs, ascending, with gaps between."""

    begins: np.ndarray
    """int64 (runs,): where each begins in the stream."""
    offsets: np.ndarray
    """int64 (runs + 1,): how many predictions the runs before it hold; the last is the number of all."""

    @staticmethod
    def whole(predictions: int) -> "SpanSet":
        """All predictions of a stream."""
        return SpanSet(np.array([0]), np.array([0, predictions]))

    def spans(self, first: int, last: int) -> list[Span]:
        """Predictions number first .. last - 1 of the runs, as spans of the stream."""
        number = int(np.searchsorted(self.offsets, first, side="right")) - 1
        result = []
        while first < last:
            before, end = int(self.offsets[number]), min(int(self.offsets[number + 1]), last)
            shift = int(self.begins[number]) - before
            result.append((first + shift, end + shift))
            first, number = end, number + 1
        return result


class EpochOrder:
    """Windows of `length` predictions of some runs, in an order drawn from `keys`; the last window may be shorter."""

    def __init__(self, runs: SpanSet, length: int, *, keys: tuple[int, ...]):
        self.runs, self.length, self.keys = runs, length, keys

    def __len__(self) -> int:
        return -(-int(self.runs.offsets[-1]) // self.length)

    def window(self, place: int) -> int:
        """Number of the window that is read at `place`."""
        return permuted(place, len(self), keys=self.keys)

    def spans(self, place: int) -> list[Span]:
        """The predictions that are read at `place`."""
        first = self.window(place) * self.length
        return self.runs.spans(first, min(first + self.length, int(self.runs.offsets[-1])))

    def rest(self, count: int) -> SpanSet:
        """What is left once the first `count` places are read; takes a byte of memory a window."""
        unread = np.ones(len(self), bool)
        for windows in first_permuted(count, len(self), keys=self.keys):
            unread[windows] = False
        turns = (np.flatnonzero(unread[1:] != unread[:-1]) + 1) * self.length
        edges = np.union1d(self.runs.offsets, turns)  # between two neighbours all is one run, and read or unread
        first, last = edges[:-1], edges[1:]
        kept = unread[first // self.length]
        first, last = first[kept], last[kept]
        number = np.searchsorted(self.runs.offsets, first, side="right") - 1
        begins = self.runs.begins[number] + first - self.runs.offsets[number]
        return SpanSet(begins, np.append([0], np.cumsum(last - first)))
