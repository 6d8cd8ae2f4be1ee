"""How the rows of a mixture are divided between its sources: exactly, at every row, and without state.

The rows of a session are a few segments, one after the other. In a segment all rows are divided by the same shares. Another one
begins where a stage of the mixture begins, or where a source may not be read any more.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

_WHOLE = 1 << 40
"""The sum, up to rounding, of shares as integers."""


class CountedRows(NamedTuple):
    """Rows that were divided by the same shares, at the end of what has been read."""

    weights: tuple[int, ...] = ()
    """Share of each source as an integer."""
    rows: int = 0


class Segment(NamedTuple):
    """Rows of a session that are divided by the same shares."""

    begin: int
    """Number of the first row."""
    stage: int
    """Number of the stage of the mixture that it is in."""
    counted: CountedRows
    """Its shares, and how many rows were divided by them just before its first one; they count on where shares stay the same."""
    offsets: tuple[int, ...]
    """Of each source: its rows of this session before the first one, less its part of the counted rows."""

    def counts(self, row: int) -> list[int]:
        """How many of the session's rows before `row`, which is in the segment or its end, come from each source."""
        divided = split_rows(self.counted.rows + row - self.begin, self.counted.weights)
        return [count + offset for count, offset in zip(divided, self.offsets, strict=True)]

    def row_of(self, source: int, index: int) -> int:
        """The row before which `index` rows come from `source` and which is one itself, if the segment is long enough for it.

        The source must have a share, and at most `index` rows before the segment.
        """
        low, high = self.begin, self.begin + 1
        while self.counts(high)[source] <= index:
            low, high = high, 3 * high - 2 * self.begin
        while high - low > 1:  # at most `index` rows of the source come before `low`, and more before `high`
            middle = (low + high) // 2
            if self.counts(middle)[source] <= index:
                low = middle
            else:
                high = middle
        return low


def plan_segments(stages: Sequence[tuple[int, tuple[int, ...]]], rows_left: Sequence[float], *,
                  counted: CountedRows) -> tuple[list[Segment], int | None]:
    """Divide the rows of a session into segments.

    Args:
        stages: (first row, integer shares of the sources) of every stage; the first begins at row 0.
        rows_left: how many rows of each source may be read; infinite where there is no limit.
        counted: the rows at the end of what earlier sessions read.

    Returns:
        (segments, how many rows there are: None where they do not end, else those before no source is left to read). A stage
        begins early where no source of the stage before may be read any more.
    """
    segments: list[Segment] = []
    row, read = 0, [0] * len(rows_left)
    begins = [begin for begin, _ in stages]
    while True:
        readable = [count < most for count, most in zip(read, rows_left, strict=True)]
        stage = next((stage for stage in range(bisect_right(begins, row) - 1, len(stages))
                      if any(weight and can for weight, can in zip(stages[stage][1], readable, strict=True))), None)
        if stage is None:
            return segments, row
        weights = tuple(weight * can for weight, can in zip(stages[stage][1], readable, strict=True))
        if weights != counted.weights:
            counted = CountedRows(weights, 0)
        divided = split_rows(counted.rows, weights)
        segment = Segment(row, stage, counted, tuple(count - part for count, part in zip(read, divided, strict=True)))
        segments.append(segment)
        limited = [segment.row_of(source, int(most) - 1) + 1 for source, most in enumerate(rows_left)
                   if weights[source] and most < math.inf]
        end = min([*limited, *begins[stage + 1 : stage + 2]], default=None)
        if end is None:
            return segments, None
        counted = CountedRows(weights, counted.rows + end - row)
        row, read = end, segment.counts(end)


def first_row_of(segments: Sequence[Segment], source: int, *, index: int) -> int | None:
    """The row of a session before which `index` rows come from `source` and which is one itself; None if there is none."""
    ends = [segment.begin for segment in segments[1:]]
    for segment, end in zip(segments, [*ends, math.inf], strict=True):
        if segment.counted.weights[source] and (row := segment.row_of(source, index)) < end:
            return row
    return None


def integer_shares(shares: Sequence[float]) -> list[int]:
    """Shares as integers, so that row counts of any size are exact and the same on every machine; none but 0 becomes 0."""
    return [max(round(share / sum(shares) * _WHOLE), 1) if share else 0 for share in shares]


def split_rows(rows: int, weights: Sequence[int]) -> list[int]:
    """How many of the first `rows` rows come from each source: its share, to within one row per source.

    The first source takes its part of all rows, the second its part of the rows that are left, and so on. One more row is
    therefore always one more row of exactly one source.
    """
    result, left = [], sum(weights)
    for weight in weights:
        rest = rows * (left - weight) // left if weight else rows
        result.append(rows - rest)
        rows, left = rest, left - weight
    return result
