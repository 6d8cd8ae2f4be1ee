"""Texts that begin alike as trees, and trees packed into rows so that nothing is computed twice and little is padding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

ROW = 256
"""Tokens of a row; larger trees get rows of the next power of two, and few small ones a smaller row."""
LEAST = 128
"""Tokens of texts that begin alike which stay together; small trees pack better."""
TRUNKS = 8
"""Texts that begin alike stay together up to so many times what they share: of a tree that is cut, an eighth is repeated."""

Ids = Sequence[int]
Request = tuple[Ids, Ids]
"""A context and its continuation."""


@dataclass(frozen=True)
class Tree:
    """Requests whose texts share their beginnings. The last token of a continuation predicts nothing and is not in it."""

    paths: tuple[tuple[int, ...], ...]
    """From the root to where each request ends, in the order of their tokens: depth first."""
    requests: tuple[int, ...]
    """Number of the request that each path answers."""
    size: int
    """Tokens that go into a row: different beginnings of the paths."""


@dataclass
class Row:
    """Trees that share a row."""

    length: int
    trees: list[Tree] = field(default_factory=list)
    room: int = 0


@dataclass(frozen=True)
class Rows:
    """One batch: three int32 (B, T) arrays, and the M of its B x T positions where a target is scored."""

    arrays: tuple[np.ndarray, ...]
    """Tokens, positions and ends: the first index of the row that does not continue the text of a token (`masks.Mask`)."""
    where_M: np.ndarray
    targets_M: np.ndarray
    count: np.ndarray
    """int32, how many of the M are real."""
    scored: dict[int, list[int]]
    """Which of the M are a request's continuation, token by token; requests that begin alike share some."""


def plant(requests: Sequence[Request], most: int) -> list[Tree]:
    """Trees of (context, continuation) ids, none over `most` tokens unless a single text is.

    A text joins the one before it, in the order of their tokens, where they share half of the longer context at least.
    """
    paths = [(*context, *continuation[:-1]) for context, continuation in requests]
    families: list[list[int]] = []
    for number in sorted(range(len(requests)), key=paths.__getitem__):
        if families:
            last = families[-1][-1]
            if 2 * shared(paths[last], paths[number]) >= max(len(requests[n][0]) for n in (last, number)):
                families[-1].append(number)
                continue
        families.append([number])
    return [tree for family in families for tree in grow([(paths[number], number) for number in family], most)]


def grow(family: Sequence[tuple[tuple[int, ...], int]], most: int) -> Iterator[Tree]:
    """A family's (path, request) in as few trees as hold it."""
    trunk = shared(family[0][0], family[-1][0])
    most = min(most, max(LEAST, TRUNKS * trunk))
    chosen, size = [], 0
    for path, number in family:
        new = len(path) - (shared(chosen[-1][0], path) if chosen else 0)
        if chosen and size + new > most:
            yield Tree(*zip(*chosen, strict=True), size)
            chosen, size, new = [], 0, len(path)
        chosen.append((path, number))
        size += new
    yield Tree(*zip(*chosen, strict=True), size)


def shared(one: Ids, other: Ids) -> int:
    """Tokens that both begin with."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def power_of_two(size: int) -> int:
    """The least that is no smaller than `size`."""
    return 1 << (size - 1).bit_length()


def few_sizes(size: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16 ... that is no smaller than `size`."""
    above = power_of_two(size)
    return above * 3 // 4 if above > 2 and above * 3 // 4 >= size else above


def pack(trees: Sequence[Tree]) -> list[Row]:
    """Every tree into the fullest row that still holds it, largest trees first."""
    shortest = min(ROW, max(32, power_of_two(sum(tree.size for tree in trees))))
    rows: list[Row] = []
    unfilled: list[Row] = []
    for tree in sorted(trees, key=lambda tree: -tree.size):
        row = min((row for row in unfilled if row.room >= tree.size), key=lambda row: row.room, default=None)
        if row is None:
            length = max(shortest, power_of_two(tree.size))
            row = Row(length, room=length)
            rows.append(row)
            unfilled.append(row)
        row.trees.append(tree)
        row.room -= tree.size
        if not row.room:
            unfilled.remove(row)
    return rows


def batches(rows: Sequence[Row], requests: Sequence[Request], tokens: int, multiple: int = 1) -> Iterator[Rows]:
    """Rows of one length at a time, about `tokens` tokens a batch and a `multiple` of rows; few shapes."""
    for length in sorted({row.length for row in rows}):
        alike = [row for row in rows if row.length == length]
        most = max(1, tokens // length // multiple) * multiple
        for at in range(0, len(alike), most):
            chosen = alike[at : at + most]
            count = min(most, -(-few_sizes(len(chosen)) // multiple) * multiple)
            yield lay_out(chosen, requests, count, length)


def lay_out(rows: Sequence[Row], requests: Sequence[Request], count: int, length: int) -> Rows:
    """Arrays of `count` rows, the last of which may be empty."""
    tokens, positions, ends = fields = np.zeros((3, count, length), np.int32)
    targets: dict[tuple[int, int], int] = {}  # (position, token) to be scored: which of the M
    scored = {}
    for r, row in enumerate(rows):
        at = 0
        for tree in row.trees:
            path, place = (), []  # where in the row the text so far lies
            for text, number in zip(tree.paths, tree.requests, strict=True):
                depth, begin = shared(path, text), at
                at += len(text) - depth
                ends[r, place[depth:]] = begin
                tokens[r, begin:at], positions[r, begin:at] = text[depth:], range(depth, len(text))
                path, place = text, [*place[:depth], *range(begin, at)]
                context, continuation = requests[number]
                asked = zip(place[len(context) - 1 :], continuation, strict=True)
                scored[number] = [targets.setdefault((r * length + before, token), len(targets)) for before, token in asked]
            ends[r, place] = at
    M = max(count * length, power_of_two(len(targets)))  # few shapes: one for nearly all batches alike
    where_M, targets_M = np.pad(np.array(list(targets), np.int32).T, ((0, 0), (0, M - len(targets))))
    return Rows(tuple(fields), where_M, targets_M, np.int32(len(targets)), scored)
