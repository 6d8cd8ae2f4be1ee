"""A mixture of sources by token share: row n is a pure function of (sources, shares, seed, position, n).

A resumed run counts its rows from the data position in its checkpoint. While nothing in its config changes, they are the rows
that it would have read without the stop.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from operator import attrgetter
from typing import Literal, NamedTuple

import numpy as np

from llama_jax.config.mixture import EpochLimit, MixtureStage
from llama_jax.data.ledger import SourceTotals, source_totals
from llama_jax.data.position import DataPosition, PlannedTokens
from llama_jax.data.reader import SourceReader
from llama_jax.data.segments import CountedRows, Segment, first_row_of, integer_shares, plan_segments
from llama_jax.data.windows import TokenRow, TokenSource


class RowOrigin(NamedTuple):
    """Where a row of a mixture comes from."""

    source: int
    """Number of the source."""
    index: int
    """How many rows of this source come before it."""
    window: int
    """Number of the window of the source. Each window comes once per epoch, in an order that differs between epochs."""


class Mixture:
    """Rows 0, 1, 2, ... of a mixture after `position`, without state: any row can be read at any time.

    All rows have T tokens, so that shares of rows are shares of tokens.

    Attributes:
        rows: how many rows there are; None where they do not end.
    """

    def __init__(self, sources: list[TokenSource], shares: Sequence[float], *, seed: int, position: DataPosition | None = None,
                 stages: Sequence[MixtureStage] = (), max_epochs: float | Sequence[EpochLimit] = 0.0,
                 on_max_epochs: Literal["stop", "warn", "reweigh"] = "stop"):
        """Mix `sources` by `shares`, which need not add up to 1, from `position` on; None is the begin of a run.

        Args:
            sources: what the rows are read from.
            shares: share of every source until the first stage begins.
            seed: seed of the order of every source.
            position: what the run has read.
            stages: other shares; each holds from the first row that begins after its number of tokens of the run, or
                earlier where no source of the stage before may be read any more.
            max_epochs: how many times each source may be read, or one number for all; 0: no limit.
            on_max_epochs: what happens where one would be read more often. stop: no row after that; reweigh: no row of it.

        Raises DataError if a source holds other text than when it was read.
        """
        self.sources, self.on_max_epochs = sources, on_max_epochs
        self.limits = ([EpochLimit(max_epochs, "data.max_epochs")] * len(sources) if isinstance(max_epochs, int | float)
                       else list(max_epochs))
        self._start = position or DataPosition()
        self._readers = [SourceReader(source, progress, seed=seed)
                         for source, progress in zip(sources, self._start.match_sources(sources), strict=True)]
        self._keys = tuple(reader.progress.key for reader in self._readers)
        self._length = sources[0].sequence_length
        self._stages = [(max(-(-(stage.begin - self._start.tokens) // self._length), 0), tuple(integer_shares(stage.shares)))
                        for stage in (MixtureStage(0, tuple(shares)), *stages)]
        # a limit is the number as it is written: 0.1 and not the float beside it
        self._rows_left = [reader.rows_within(Fraction(repr(limit.epochs))) if limit.epochs else math.inf
                           for reader, limit in zip(self._readers, self.limits, strict=True)]
        kept = CountedRows(self._start.weights, self._start.rows) if self._keys == self._start.keys else CountedRows()
        readable = self._rows_left if on_max_epochs == "reweigh" else [math.inf] * len(sources)
        self._segments, self.rows = plan_segments(self._stages, readable, counted=kept)
        if on_max_epochs == "stop":
            self.rows = min((row for row, _ in self._passed_limits()), default=None)

    @staticmethod
    def normalise(shares: Sequence[float]) -> list[float]:
        """Shares that add up to 1."""
        return [share / sum(shares) for share in shares]

    def _segment(self, n: int) -> Segment:
        """The segment that row n is in; after the last row, the last segment."""
        return self._segments[bisect_right(self._segments, n, key=attrgetter("begin")) - 1]

    def counts(self, rows: int) -> list[int]:
        """How many of the first `rows` rows come from each source."""
        return self._segment(rows).counts(rows) if self._segments else [0] * len(self.sources)

    def _place(self, n: int) -> tuple[int, int]:
        """(number of the source, how many rows of it come before) of row n; raises IndexError after the last row."""
        if self.rows is not None and n >= self.rows:
            raise IndexError(f"row {n} of a mixture of {self.rows} rows")
        segment = self._segment(n)
        before, after = segment.counts(n), segment.counts(n + 1)
        source = next(number for number, count in enumerate(after) if count > before[number])
        return source, before[source]

    def __getitem__(self, n: int) -> RowOrigin:
        source, index = self._place(n)
        return RowOrigin(source, index, self._readers[source].window(index))

    def row(self, n: int) -> TokenRow:
        """Row n of the mixture."""
        source, index = self._place(n)
        return self.sources[source].row(self._readers[source].spans(index))

    def tokens(self, n: int) -> np.ndarray:
        """int32 tokens of row n, its last target included, shape (T + 1,)."""
        row = self.row(n)
        return np.append(row.tokens, row.targets[-1:])

    def shares(self, n: int) -> list[float]:
        """The shares, which add up to 1, by which rows are divided at row n."""
        weights = self._segment(n).counted.weights if self._segments else self._stages[0][1]
        return self.normalise(weights)

    def position(self, rows: int) -> DataPosition:
        """The data position after the first `rows` rows, for a checkpoint."""
        read = [reader.after(count) for reader, count in zip(self._readers, self.counts(rows), strict=True)]
        others = [progress for progress in self._start.sources if progress.key not in self._keys]
        if not self._segments:
            return DataPosition((*read, *others), self._start.keys, self._start.weights, self._start.rows,
                                self._start.known_plan())
        segment = self._segment(rows)
        counted = segment.counted.rows + rows - segment.begin
        return DataPosition((*read, *others), self._keys, segment.counted.weights, counted, self._planned(rows))

    def _planned(self, rows: int) -> tuple[PlannedTokens, ...]:
        """The shares that were planned up to the end of the first `rows` rows."""
        planned = list(self._start.known_plan())
        ends = [segment.begin for segment in self._segments[1:]]
        for segment, end in zip(self._segments, [*ends, rows], strict=True):
            tokens = (min(end, rows) - segment.begin) * self._length
            weights = self._stages[segment.stage][1]
            if tokens <= 0:
                break
            if planned and (planned[-1].keys, planned[-1].weights) == (self._keys, weights):
                tokens += planned.pop().tokens
            planned.append(PlannedTokens(self._keys, weights, tokens))
        return tuple(planned)

    def ledger(self, rows: int) -> dict[str, SourceTotals]:
        """How much has been read of each source, by name, after the first `rows` rows."""
        return source_totals(self.position(rows))

    def steps(self, most: int, *, batch_size: int) -> int:
        """How many whole steps of `batch_size` rows there are, at most `most`."""
        return most if self.rows is None else min(most, self.rows // batch_size)

    @property
    def limit_options(self) -> str:
        """The options of the config that limit epochs, for messages."""
        return " or ".join(dict.fromkeys(limit.option for limit in self.limits if limit.epochs))

    def end_reason(self) -> str:
        """Why there are no rows after the last one; empty where they do not end."""
        if self.rows is None:
            return ""
        if self.on_max_epochs == "reweigh":
            limits = dict.fromkeys(str(limit) for limit in self.limits if limit.epochs)
            return f"every source of the mixture has reached {' or '.join(limits)}"
        first = next(number for row, number in self._passed_limits() if row == self.rows)
        return f"{self.sources[first].name} would pass {self.limits[first]}"

    def notes(self) -> list[tuple[int, str]]:
        """(row, sentence) of every change at a row: a stage that begins, a source that reaches its limit."""
        notes = []
        for before, segment in pairwise(self._segments):
            if segment.stage > before.stage:
                begin, weights = self._stages[segment.stage]
                early = ", early, because no source of the one before may be read any more" if segment.begin < begin else ""
                notes.append((segment.begin, f"another stage of the mixture begins{early}: {self._shares_text(weights)} "
                              "(data.stages)"))
        if self.on_max_epochs == "warn":
            notes += [(row, f"{self.sources[number].name} passes {self.limits[number]}")
                      for row, number in self._passed_limits()]
        if self.on_max_epochs == "reweigh":
            for row, number in self._left_out():
                shares = self._shares_text(self._segment(row).counted.weights)
                notes.append((row, f"{self.sources[number].name} has reached {self.limits[number]} and is left "
                              f"out; the mixture is now {shares}"))
        return sorted(notes)

    def _shares_text(self, weights: Sequence[int]) -> str:
        """The sources that have a share, each with its share."""
        return ", ".join(f"{source.name} {weight / sum(weights):.1%}"
                         for source, weight in zip(self.sources, weights, strict=True) if weight)

    def _passed_limits(self) -> Iterator[tuple[int, int]]:
        """(row, number of the source) where a source would first be read more often than its limit, if nothing stops it."""
        for number, most in enumerate(self._rows_left):
            if most < math.inf and (row := first_row_of(self._segments, number, index=int(most))) is not None:
                yield row, number

    def _left_out(self) -> Iterator[tuple[int, int]]:
        """(row, number of the source) from which on a source that its stage names is left out, by reweighing."""
        out: set[int] = set()
        for segment in self._segments:
            weights = self._stages[segment.stage][1]
            for number, (planned, weight) in enumerate(zip(weights, segment.counted.weights, strict=True)):
                if planned and not weight and number not in out:
                    out.add(number)
                    yield segment.begin, number
