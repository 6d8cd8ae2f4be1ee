"""The rows of one source, from where a run stopped reading it."""

from dataclasses import replace
from fractions import Fraction

from llama_jax.data.order import EpochOrder, SpanSet
from llama_jax.data.permutation import permutation_keys
from llama_jax.data.position import EpochCut, SourceProgress
from llama_jax.data.windows import Span, TokenSource


class SourceReader:
    """The rows of one source from its `progress` on: a pure function of it, the source, the seed and the row's number."""

    def __init__(self, source: TokenSource, progress: SourceProgress, *, seed: int):
        self.source, self.progress, self.seed = source, progress, seed
        self._length = source.sequence_length
        cuts, runs, self._before = progress.cuts, SpanSet.whole(source.predictions), Fraction(0)
        same = bool(cuts) and (cuts[-1].length, cuts[-1].seed) == (self._length, seed)
        self._cuts = cuts[:-1] if same else cuts
        self._read = cuts[-1].windows if same else 0
        for number, cut in enumerate(self._cuts):
            order = EpochOrder(runs, cut.length, keys=self._keys(cut.seed, progress.epoch, cut=number))
            self._before += (1 - self._before) * Fraction(cut.windows, len(order))
            runs = order.rest(cut.windows)
        self._order = EpochOrder(runs, self._length, keys=self._keys(seed, progress.epoch, cut=len(self._cuts)))

    def _keys(self, seed: int, epoch: int, *, cut: int) -> tuple[int, ...]:
        return permutation_keys(seed, self.progress.key, epoch, *((cut,) if cut else ()))

    def _place(self, row: int) -> tuple[int, int]:
        """(epoch, place in its order) of a row."""
        after = self._read + row - len(self._order)
        if after < 0:
            return self.progress.epoch, self._read + row
        epochs, place = divmod(after, len(self.source))
        return self.progress.epoch + 1 + epochs, place

    def _order_of(self, epoch: int) -> EpochOrder:
        if epoch == self.progress.epoch:
            return self._order
        return EpochOrder(SpanSet.whole(self.source.predictions), self._length, keys=self._keys(self.seed, epoch, cut=0))

    def window(self, row: int) -> int:
        """Which window of its epoch's order a row is."""
        epoch, place = self._place(row)
        return self._order_of(epoch).window(place)

    def spans(self, row: int) -> list[Span]:
        """The predictions that a row holds."""
        epoch, place = self._place(row)
        return self._order_of(epoch).spans(place)

    def after(self, rows: int) -> SourceProgress:
        """The progress once `rows` more rows are read."""
        if rows == 0:
            return self.progress
        epoch, place = self._place(rows)
        under_way = epoch == self.progress.epoch
        before, cuts, size = (self._before, self._cuts, len(self._order)) if under_way else (Fraction(0), (), len(self.source))
        share = before + (1 - before) * Fraction(place, size)
        cuts = (*cuts, EpochCut(self._length, self.seed, place)) if place else cuts
        return replace(self.progress, tokens=self.progress.tokens + rows * self._length, epochs=float(epoch + share),
                       epoch=epoch, cuts=cuts)
