"""The rows of one source, from where a run stopped reading it."""

from dataclasses import replace
from fractions import Fraction

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
        for number, cut in enumerate(self._cuts):
            order = EpochOrder(unread, cut.length, keys=self._keys(cut.seed, progress.epoch, cut=number))
            self._share_before += (1 - self._share_before) * Fraction(cut.windows, len(order))
            unread = order.rest(cut.windows)
        self._order = EpochOrder(unread, self._length, keys=self._keys(seed, progress.epoch, cut=len(self._cuts)))

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
                       epoch=epoch, cuts=cuts)
