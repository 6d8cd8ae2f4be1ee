"""The shuffled order in which one epoch of a source is read.

The text of the source is cut into windows, which are read in the order of a stateless permutation. If the length of a row or the
seed changes within an epoch, the unread text, in the order of the stream, is cut into new windows and shuffled again: no token is
read twice and none is skipped, and rows are as contiguous as the unread text allows.
"""

from typing import NamedTuple

import numpy as np

from llama_jax.data.permutation import first_permuted, permuted, place_of
from llama_jax.data.windows import Span


class SpanSet(NamedTuple):
    """Some predictions of a stream, as disjoint spans in ascending order."""

    begins: np.ndarray
    """int64, shape (spans,): where each span begins in the stream."""
    offsets: np.ndarray
    """int64, shape (spans + 1,): how many predictions the spans before each hold; the last is the number of all."""

    @staticmethod
    def whole(predictions: int) -> "SpanSet":
        """The span set that holds every predicted token of a stream."""
        return SpanSet(np.array([0]), np.array([0, predictions]))

    def spans(self, first: int, last: int) -> list[Span]:
        """Predictions number first .. last - 1 of the set, as spans of the stream."""
        number = int(np.searchsorted(self.offsets, first, side="right")) - 1
        result = []
        while first < last:
            before, end = int(self.offsets[number]), min(int(self.offsets[number + 1]), last)
            shift = int(self.begins[number]) - before
            result.append((first + shift, end + shift))
            first, number = end, number + 1
        return result


class EpochOrder:
    """A set of predictions cut into windows of `length`, in the order of a permutation; the last window may be shorter."""

    def __init__(self, available: SpanSet, length: int, *, keys: tuple[int, ...]):
        self.available, self.length, self.keys = available, length, keys

    def __len__(self) -> int:
        return -(-int(self.available.offsets[-1]) // self.length)

    def window(self, place: int) -> int:
        """Number of the window that is read at `place`."""
        return permuted(place, len(self), keys=self.keys)

    def spans(self, place: int) -> list[Span]:
        """The predictions that are read at `place`."""
        first = self.window(place) * self.length
        return self.available.spans(first, min(first + self.length, int(self.available.offsets[-1])))

    def predictions(self, count: int) -> int:
        """How many predictions the first `count` places hold."""
        missing = len(self) * self.length - int(self.available.offsets[-1])  # what the last window is short of
        last_is_read = place_of(len(self) - 1, len(self), keys=self.keys) < count
        return count * self.length - (missing if last_is_read else 0)

    def rest(self, count: int) -> SpanSet:
        """The predictions that are unread after the first `count` places; takes one byte of memory per window."""
        unread = np.ones(len(self), bool)
        for windows in first_permuted(count, len(self), keys=self.keys):
            unread[windows] = False
        turns = (np.flatnonzero(unread[1:] != unread[:-1]) + 1) * self.length
        edges = np.union1d(self.available.offsets, turns)  # between two edges all is contiguous, and all read or all unread
        first, last = edges[:-1], edges[1:]
        kept = unread[first // self.length]
        first, last = first[kept], last[kept]
        number = np.searchsorted(self.available.offsets, first, side="right") - 1
        begins = self.available.begins[number] + first - self.available.offsets[number]
        return SpanSet(begins, np.append([0], np.cumsum(last - first)))
