"""Contexts with their continuations as trees, and trees packed into rows so that little of a row is padding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

ROW = 512
"""Tokens of a row; longer trees get rows of the next power of two, and few short ones a smaller row."""


@dataclass(frozen=True)
class Tree:
    """A context and continuations of it. The trunk's last token predicts the first token of every branch."""

    trunk: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]
    requests: tuple[int, ...]
    """Number of the request that each branch answers."""

    @property
    def size(self) -> int:
        """Tokens that go into a row: the last token of a branch predicts nothing."""
        return len(self.trunk) + sum(len(branch) - 1 for branch in self.branches)


@dataclass
class Row:
    """Trees that share a row."""

    length: int
    trees: list[Tree] = field(default_factory=list)
    used: int = 0


@dataclass(frozen=True)
class Rows:
    """One batch: four int32 (B, T) arrays, and the M of its B x T positions where a target is scored."""

    arrays: tuple[np.ndarray, ...]
    """Tokens, positions, segment ids (0: padding) and branch ids."""
    where_M: np.ndarray
    targets_M: np.ndarray
    count: np.ndarray
    """int32, how many of the M are real."""
    spans: tuple[tuple[int, int, int], ...]
    """(request, first, last + 1) of the scored positions that answer a request."""


def plant(requests: Sequence[tuple[Sequence[int], Sequence[int]]], most: int) -> list[Tree]:
    """Trees of (context, continuation) ids: equal contexts become one trunk, of at most `most` tokens a tree."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, (context, _) in enumerate(requests):
        groups.setdefault(tuple(context), []).append(number)
    trees = []
    for trunk, numbers in groups.items():
        size, chosen = len(trunk), []
        for number in numbers:
            extra = len(requests[number][1]) - 1
            if chosen and size + extra > most:
                trees.append(_tree(requests, trunk, chosen))
                size, chosen = len(trunk), []
            size, chosen = size + extra, [*chosen, number]
        trees.append(_tree(requests, trunk, chosen))
    return trees


def _tree(requests, trunk: tuple[int, ...], numbers: list[int]) -> Tree:
    return Tree(trunk, tuple(tuple(requests[n][1]) for n in numbers), tuple(numbers))


def power_of_two(size: int) -> int:
    """The least that is no smaller than `size`."""
    return 1 << (size - 1).bit_length()


def few_sizes(size: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16 ... that is no smaller than `size`."""
    above = power_of_two(size)
    return above * 3 // 4 if above > 2 and above * 3 // 4 >= size else above


def pack(trees: Sequence[Tree]) -> list[Row]:
    """Every tree into the fullest row of its length that still holds it, largest trees first."""
    shortest = min(ROW, max(32, power_of_two(sum(tree.size for tree in trees))))
    rows: list[Row] = []
    unfilled: dict[int, list[Row]] = {}
    for tree in sorted(trees, key=lambda tree: -tree.size):
        length = max(shortest, power_of_two(tree.size))
        fitting = [row for row in unfilled.setdefault(length, []) if row.used + tree.size <= length]
        row = max(fitting, key=lambda row: row.used, default=None)
        if row is None:
            row = Row(length)
            rows.append(row)
            unfilled[length].append(row)
        row.trees.append(tree)
        row.used += tree.size
        if row.used == length:
            unfilled[length].remove(row)
    return rows


def batches(rows: Sequence[Row], tokens: int, multiple: int = 1) -> Iterator[Rows]:
    """Rows of one length at a time, about `tokens` tokens a batch and a `multiple` of rows; few shapes."""
    for length in sorted({row.length for row in rows}):
        alike = [row for row in rows if row.length == length]
        most = max(1, tokens // length // multiple) * multiple
        for at in range(0, len(alike), most):
            chosen = alike[at : at + most]
            count = min(most, -(-few_sizes(len(chosen)) // multiple) * multiple)
            yield lay_out(chosen, count, length)


def lay_out(rows: Sequence[Row], count: int, length: int) -> Rows:
    """Arrays of `count` rows, the last of which may be empty."""
    fields = np.zeros((4, count, length), np.int32)
    where, targets, spans = [], [], []
    for r, row in enumerate(rows):
        at = 0
        for segment, tree in enumerate(row.trees, 1):
            n = len(tree.trunk)
            fields[:, r, at : at + n] = tree.trunk, range(n), [segment] * n, [0] * n
            last, at = at + n - 1, at + n
            for branch, (tokens, request) in enumerate(zip(tree.branches, tree.requests, strict=True), 1):
                m = len(tokens) - 1
                fields[:, r, at : at + m] = tokens[:-1], range(n, n + m), [segment] * m, [branch] * m
                spans.append((request, len(where), len(where) + m + 1))
                where += [r * length + position for position in (last, *range(at, at + m))]
                targets += tokens
                at += m
    padding = [0] * (max(count * length, power_of_two(len(where))) - len(where))  # few shapes: one for nearly all batches alike
    return Rows(tuple(fields), np.array(where + padding, np.int32), np.array(targets + padding, np.int32),
                np.int32(len(where)), tuple(spans))
