"""The rows of one source, from where a run stopped reading it."""

import math
from dataclasses import replace
from fractions import Fraction
from functools import cached_property

from llama_jax.data.documents import DocumentCounter
from llama_jax.data.order import EpochOrder, SpanSet
from llama_jax.data.permutation import permutation_keys
from llama_jax.data.position import EpochCut, SourceProgress
from llama_jax.data.windows import Span, TokenSource


class SourceReader:
    """Rows 0, 1, 2, ... of a source after `progress`; each row is a pure function of both, the seed and its number."""

    def __init__(self, source: TokenSource, progress: SourceProgress, *, seed: int):
        self.source, self.progress, self.seed = source, progress, seed
        self._length = source.sequence_length
        cuts, unread, self._share_before = progress.cuts, SpanSet.whole(source.predictions), Fraction(0)
        continues = bool(cuts) and (cuts[-1].length, cuts[-1].seed) == (self._length, seed)
        self._cuts = cuts[:-1] if continues else cuts
        self._windows_read = cuts[-1].windows if continues else 0
        counted, documents = progress.documents >= 0, progress.epoch * source.manifest.documents
        for number, cut in enumerate(self._cuts):
            order = EpochOrder(unread, cut.length, keys=self._keys(cut.seed, progress.epoch, cut=number))
            self._share_before += (1 - self._share_before) * Fraction(cut.windows, len(order))
            if not counted:
                documents += DocumentCounter(source, order).count(0, cut.windows)
            unread = order.rest(cut.windows)
        self._order = EpochOrder(unread, self._length, keys=self._keys(seed, progress.epoch, cut=len(self._cuts)))
        if not counted:
            documents += self._counter.count(0, self._windows_read)
            repeated = self._repeated(progress.epoch, self._windows_read)
            self.progress = replace(progress, documents=documents, repeated=repeated)
        self._last_count = 0, 0  # rows, and the documents that begin in them

    def _keys(self, seed: int, epoch: int, *, cut: int) -> tuple[int, ...]:
        """Keys of a cut's permutation; the first cut of an epoch adds no number, as in earlier versions, which had only that."""
        numbers = (cut,) if cut else ()
        return permutation_keys(seed, self.progress.key, epoch, *numbers)

    def _place(self, row: int) -> tuple[int, int]:
        """(epoch, place in its order) of a row."""
        after = self._windows_read + row - len(self._order)
        if after < 0:
            return self.progress.epoch, self._windows_read + row
        epochs, place = divmod(after, len(self.source))
        return self.progress.epoch + 1 + epochs, place

    def _order_of(self, epoch: int) -> EpochOrder:
        if epoch == self.progress.epoch:
            return self._order
        return EpochOrder(SpanSet.whole(self.source.predictions), self._length, keys=self._keys(self.seed, epoch, cut=0))

    def window(self, row: int) -> int:
        """Number of the window, in its epoch's order, that a row is."""
        epoch, place = self._place(row)
        return self._order_of(epoch).window(place)

    def spans(self, row: int) -> list[Span]:
        """The predictions that a row holds."""
        epoch, place = self._place(row)
        return self._order_of(epoch).spans(place)

    def rows_within(self, epochs: Fraction) -> int:
        """How many more rows can be read until the source has been read more than `epochs` times."""
        first_whole = self.progress.epoch + 1
        if epochs >= first_whole:
            return len(self._order) - self._windows_read + math.floor((epochs - first_whole) * len(self.source))
        share = (epochs - self.progress.epoch - self._share_before) / (1 - self._share_before)  # of the order
        return max(math.floor(share * len(self._order)) - self._windows_read, 0)

    def after(self, rows: int) -> SourceProgress:
        """What has been read of the source after `rows` more rows."""
        if rows == 0:
            return self.progress
        epoch, place = self._place(rows)
        if epoch == self.progress.epoch:
            share_before, cuts, windows = self._share_before, self._cuts, len(self._order)
        else:
            share_before, cuts, windows = Fraction(0), (), len(self.source)
        share = share_before + (1 - share_before) * Fraction(place, windows)
        if place:
            cuts = (*cuts, EpochCut(self._length, self.seed, place))
        return replace(self.progress, tokens=self.progress.tokens + rows * self._length, epochs=float(epoch + share),
                       epoch=epoch, cuts=cuts, documents=self.progress.documents + self._documents(rows),
                       repeated=self._repeated(epoch, place))

    def _repeated(self, epoch: int, place: int) -> int:
        """Tokens predicted in epochs after the first, up to a place in the order of an epoch."""
        if epoch == 0:
            return 0
        order = self._order_of(epoch)
        read_before = self.source.predictions - int(order.available.offsets[-1])  # by the epoch's earlier cuts
        return (epoch - 1) * self.source.predictions + read_before + order.predictions(place)

    def _documents(self, rows: int) -> int:
        """Documents that begin in the first `rows` rows. The last count is remembered, so that only new rows are counted."""
        counted, documents = self._last_count if self._last_count[0] <= rows else (0, 0)
        epoch, place = self._place(counted)
        last_epoch, last_place = self._place(rows)
        if epoch < last_epoch:
            documents += self._counter_of(epoch).count(place, len(self._order_of(epoch)))
            documents += (last_epoch - epoch - 1) * self.source.manifest.documents
            epoch, place = last_epoch, 0
        documents += self._counter_of(epoch).count(place, last_place)
        self._last_count = rows, documents
        return documents

    def _counter_of(self, epoch: int) -> DocumentCounter:
        return self._counter if epoch == self.progress.epoch else DocumentCounter(self.source, self._order_of(epoch))

    @cached_property
    def _counter(self) -> DocumentCounter:
        """Counter of the documents of the epoch under way."""
        return DocumentCounter(self.source, self._order)
