"""What a run has read of its sources: recorded with every checkpoint, and continued from.

The record does not depend on the batch size, the length of a row or the shares: of each source it says which epoch is under
way and which windows of it were read, so that all of them may change between two sessions of a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from llama_jax.data.order import Order, Runs
from llama_jax.data.permutation import keys_of
from llama_jax.data.windows import Span, TokenSource
from llama_jax.errors import DataError


@dataclass(frozen=True)
class Cut:
    """One way in which what was left of an epoch was cut and shuffled, and how much of it was read."""

    length: int
    """Tokens T of a row."""
    seed: int
    windows: int
    """The first of its order, which were read."""


@dataclass(frozen=True)
class Progress:
    """What has been read of one source."""

    name: str
    path: str
    digest: str
    """Of its tokens, see `TokenSource.digest`."""
    key: int
    """Its number in the seeds of its orders; kept while sources come and go."""
    tokens: int = 0
    """In all epochs, padding of their last rows counted."""
    epochs: float = 0.0
    """How often its text was read."""
    epoch: int = 0
    """The one under way."""
    cuts: tuple[Cut, ...] = ()
    """Of the epoch under way: each one cuts what the ones before it left."""


@dataclass(frozen=True)
class Position:
    """What a run has read."""

    sources: tuple[Progress, ...] = ()
    """All that were read since the run began, those that its config no longer names too."""
    keys: tuple[int, ...] = ()
    weights: tuple[int, ...] = ()
    """The mixture under way: keys of its sources in their order, and their shares as integers."""
    rows: int = 0
    """Rows read of this mixture."""

    @property
    def tokens(self) -> int:
        """Read of all sources together."""
        return sum(progress.tokens for progress in self.sources)

    def take_up(self, sources: Sequence[TokenSource]) -> list[Progress]:
        """The progress of each of `sources`, which are known by their tokens wherever they lie; others are new.

        Raises DataError where a folder holds other tokens than when it was read.
        """
        left, found = list(self.sources), {}
        for same_path in (True, False):
            for number, source in enumerate(sources):
                known = [p for p in left if p.digest == source.digest and (p.path == path_of(source) or not same_path)]
                if known and number not in found:
                    found[number] = known[0]
                    left.remove(known[0])
        for number, source in enumerate(sources):
            if number in found:
                continue
            if any(progress.path == path_of(source) for progress in left):
                raise DataError(f"{source.folder} holds other tokens than those this run has read; put them in another folder, "
                                "to read them as another source, or use another --workdir.")
            others = [*self.sources, *found.values()]
            name, key, again = source.name, number, 2
            while name in [progress.name for progress in others]:
                name, again = f"{source.name}-{again}", again + 1
            if key in [progress.key for progress in others]:
                key = max(progress.key for progress in others) + 1
            found[number] = Progress(name, path_of(source), source.digest, key)
        return [found[number] for number in range(len(sources))]


def path_of(source: TokenSource) -> str:
    """Where a source lies, however it was named."""
    return str(source.folder.resolve())


class Reader:
    """The rows of one source from its `progress` on: a pure function of it, the source, the seed and the row's number."""

    def __init__(self, source: TokenSource, progress: Progress, seed: int):
        self.source, self.progress, self.seed = source, progress, seed
        self._length = source.sequence_length
        cuts, runs, self._before = progress.cuts, Runs.whole(source.predictions), Fraction(0)
        same = bool(cuts) and (cuts[-1].length, cuts[-1].seed) == (self._length, seed)
        self._cuts = cuts[:-1] if same else cuts
        self._read = cuts[-1].windows if same else 0
        for number, cut in enumerate(self._cuts):
            order = Order(runs, cut.length, self._keys(cut.seed, progress.epoch, number))
            self._before += (1 - self._before) * Fraction(cut.windows, len(order))
            runs = order.rest(cut.windows)
        self._order = Order(runs, self._length, self._keys(seed, progress.epoch, len(self._cuts)))

    def _keys(self, seed: int, epoch: int, cut: int) -> tuple[int, ...]:
        return keys_of(seed, self.progress.key, epoch, *((cut,) if cut else ()))

    def _place(self, row: int) -> tuple[int, int]:
        """(epoch, place in its order) of a row."""
        after = self._read + row - len(self._order)
        if after < 0:
            return self.progress.epoch, self._read + row
        epochs, place = divmod(after, len(self.source))
        return self.progress.epoch + 1 + epochs, place

    def _order_of(self, epoch: int) -> Order:
        if epoch == self.progress.epoch:
            return self._order
        return Order(Runs.whole(self.source.predictions), self._length, self._keys(self.seed, epoch, 0))

    def window(self, row: int) -> int:
        """Which window of its epoch's order a row is."""
        epoch, place = self._place(row)
        return self._order_of(epoch).window(place)

    def spans(self, row: int) -> list[Span]:
        """The predictions that a row holds."""
        epoch, place = self._place(row)
        return self._order_of(epoch).spans(place)

    def after(self, rows: int) -> Progress:
        """The progress once `rows` more rows are read."""
        if rows == 0:
            return self.progress
        epoch, place = self._place(rows)
        under_way = epoch == self.progress.epoch
        before, cuts, size = (self._before, self._cuts, len(self._order)) if under_way else (Fraction(0), (), len(self.source))
        share = before + (1 - before) * Fraction(place, size)
        cuts = (*cuts, Cut(self._length, self.seed, place)) if place else cuts
        return replace(self.progress, tokens=self.progress.tokens + rows * self._length, epochs=float(epoch + share),
                       epoch=epoch, cuts=cuts)
