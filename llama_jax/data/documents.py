"""How many documents begin in the rows of a source, counted from the places where its documents begin, without its tokens."""

import numpy as np

from llama_jax.data.order import EpochOrder
from llama_jax.data.permutation import first_permuted
from llama_jax.data.windows import TokenSource


class DocumentCounter:
    """Counts the documents that begin in the windows of `order`: those whose first token is an input of a window."""

    def __init__(self, source: TokenSource, order: EpochOrder):
        self._source, self._order = source, order
        begins, offsets = order.available
        self._at_begin = source.documents_before(begins)
        in_spans = source.documents_before(begins + np.diff(offsets)) - self._at_begin
        self._in_earlier_spans = np.append([0], np.cumsum(in_spans)[:-1])

    def count(self, first: int, last: int) -> int:
        """Documents that begin at places first .. last - 1 of the order."""
        order, total = self._order, 0
        for windows in first_permuted(last - first, len(order), keys=order.keys, start=first):
            begins = windows * order.length
            ends = np.minimum(begins + order.length, order.available.offsets[-1])
            total += int((self._before(ends) - self._before(begins)).sum())
        return total

    def _before(self, predictions: np.ndarray) -> np.ndarray:
        """Documents that begin in the first n predictions of the order's text, for every n of an array."""
        begins, offsets = self._order.available
        span = np.minimum(np.searchsorted(offsets, predictions, side="right"), len(begins)) - 1
        places = begins[span] + predictions - offsets[span]
        return self._in_earlier_spans[span] + self._source.documents_before(places) - self._at_begin[span]
