"""Prefix sharing for scoring: requests that share a prefix form a prefix tree, and what they share is computed once.

Three steps lead from requests to the arrays that the model reads:

1. `build_prefix_trees` groups requests whose token ids share a prefix, and splits a group that is too large for one row.
2. `pack_rows` puts several trees into one row by best-fit decreasing bin packing, so that little of a row is padding.
3. `tree_batches` stacks rows of one length into arrays. A tree lies in its row depth first, which puts all that continues a
   token into one interval after it; the index where this interval ends is all that the attention mask needs to know.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

ROW_TOKENS = 256
"""Usual length of a row. A larger tree gets a row of the next power of two, and a batch of few small trees a shorter row."""
SMALL_TREE_TOKENS = 128
"""A group of requests is never split into trees below this size, whatever they share: repeating so little costs nothing."""
TREE_SIZE_PER_PREFIX = 8
"""Size of a tree, in lengths of the prefix that its whole group shares, above which the group is split.

Smaller trees pack better, but each repeats the prefix: at eight times its length an eighth of a tree is repeated.
"""

Ids = Sequence[int]
"""Token ids."""
ScoringRequest = tuple[Ids, Ids]
"""Token ids of a context and of the continuation whose tokens are scored."""


@dataclass(frozen=True)
class PrefixTree:
    """Requests that share prefixes, as the paths of a tree whose nodes are tokens.

    The last token of a continuation predicts nothing that is asked for, and is not in the tree.
    """

    paths: tuple[tuple[int, ...], ...]
    """Token ids from the root to where each request ends, in lexicographic order, which is depth-first order."""
    requests: tuple[int, ...]
    """Number of the request that each path belongs to."""
    size: int
    """Nodes of the tree: the tokens that it fills of a row."""


@dataclass
class PackedRow:
    """Trees that share one row of a batch."""

    length: int
    """Tokens that the row holds."""
    trees: list[PrefixTree] = field(default_factory=list)
    free: int = 0
    """Tokens that are not filled by a tree."""


@dataclass(frozen=True)
class TreeBatch:
    """Rows of packed trees as int32 arrays, and the M places among their B x T positions where a target is scored."""

    tokens_BT: np.ndarray
    positions_BT: np.ndarray
    """Depth of each token in its tree, which is its position in its own text."""
    ends_BT: np.ndarray
    """First index of the row that does not continue the text of a token: `ends_BT` of `ops.masks.Mask`."""
    where_M: np.ndarray
    """Index of each scored position in the flattened B x T positions."""
    targets_M: np.ndarray
    """Token id whose log-probability is asked for after the token at that position."""
    count: np.ndarray
    """int32 scalar: how many of the M are real, the rest being padding."""
    scored: dict[int, list[int]]
    """By request number, the indices into M of its continuation, token by token; requests share those of a common prefix."""


def build_prefix_trees(requests: Sequence[ScoringRequest], *, max_tokens: int) -> list[PrefixTree]:
    """Prefix trees that together hold every request once.

    In lexicographic order, a request joins the group of the one before it where the two share at least half of the longer
    context: shorter prefixes save less than the freedom to pack two small trees.

    Args:
        requests: Token ids of (context, continuation).
        max_tokens: Size that no tree exceeds, unless a single request does.
    """
    paths = [(*context, *continuation[:-1]) for context, continuation in requests]
    groups: list[list[int]] = []
    for number in sorted(range(len(requests)), key=paths.__getitem__):
        if groups:
            previous = groups[-1][-1]
            longer_context = max(len(requests[previous][0]), len(requests[number][0]))
            if 2 * common_prefix_length(paths[previous], paths[number]) >= longer_context:
                groups[-1].append(number)
                continue
        groups.append([number])
    trees = []
    for group in groups:
        trees += _split_into_trees([(paths[number], number) for number in group], max_tokens)
    return trees


def _split_into_trees(group: Sequence[tuple[tuple[int, ...], int]], max_tokens: int) -> Iterator[PrefixTree]:
    """Trees of a group of (path, request number) in lexicographic order, each filled up before the next begins."""
    first_path, last_path = group[0][0], group[-1][0]
    shared_by_all = common_prefix_length(first_path, last_path)  # sorted: what the outermost share, all share
    limit = min(max_tokens, max(SMALL_TREE_TOKENS, TREE_SIZE_PER_PREFIX * shared_by_all))
    chosen: list[tuple[tuple[int, ...], int]] = []
    size = 0
    for path, number in group:
        new_tokens = len(path)
        if chosen:
            new_tokens -= common_prefix_length(chosen[-1][0], path)
        if chosen and size + new_tokens > limit:
            yield _tree_of(chosen, size)
            chosen, size, new_tokens = [], 0, len(path)
        chosen.append((path, number))
        size += new_tokens
    yield _tree_of(chosen, size)


def _tree_of(chosen: Sequence[tuple[tuple[int, ...], int]], size: int) -> PrefixTree:
    """A tree of (path, request number) pairs."""
    paths, requests = zip(*chosen, strict=True)
    return PrefixTree(paths, requests, size)


def common_prefix_length(one: Ids, other: Ids) -> int:
    """Number of tokens of the longest common prefix."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def _next_power_of_two(size: int) -> int:
    """The least power of two that is no smaller than `size`."""
    return 1 << (size - 1).bit_length()


def _round_up(size: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16 ... that is no smaller than `size`: few sizes, and so few compilations."""
    power = _next_power_of_two(size)
    three_quarters = power * 3 // 4
    return three_quarters if power > 2 and three_quarters >= size else power


def pack_rows(trees: Sequence[PrefixTree]) -> list[PackedRow]:
    """Rows that hold all trees, filled by best-fit decreasing: largest trees first, each into the fullest row that holds it."""
    shortest = min(ROW_TOKENS, max(32, _next_power_of_two(sum(tree.size for tree in trees))))
    rows: list[PackedRow] = []
    open_rows: list[PackedRow] = []
    for tree in sorted(trees, key=lambda tree: -tree.size):
        fitting = (row for row in open_rows if row.free >= tree.size)
        row = min(fitting, key=lambda row: row.free, default=None)
        if row is None:
            length = max(shortest, _next_power_of_two(tree.size))
            row = PackedRow(length, free=length)
            rows.append(row)
            open_rows.append(row)
        row.trees.append(tree)
        row.free -= tree.size
        if not row.free:
            open_rows.remove(row)
    return rows


def tree_batches(rows: Sequence[PackedRow], requests: Sequence[ScoringRequest], *, batch_tokens: int,
                 row_multiple: int = 1) -> Iterator[TreeBatch]:
    """Batches of rows of one length, shortest first; their arrays come in few shapes, so that few programs are compiled.

    Args:
        rows: As `pack_rows` makes them.
        requests: The token ids of (context, continuation) that the trees were built from.
        batch_tokens: Tokens of a batch, about; at least one row per device that shares the rows.
        row_multiple: The number of rows of a batch is a multiple of this: the devices that share the rows.
    """
    for length in sorted({row.length for row in rows}):
        same_length = [row for row in rows if row.length == length]
        max_rows = max(1, batch_tokens // length // row_multiple) * row_multiple
        for begin in range(0, len(same_length), max_rows):
            chosen = same_length[begin : begin + max_rows]
            rounded_up = -(-_round_up(len(chosen)) // row_multiple) * row_multiple
            yield _lay_out(chosen, requests, row_count=min(max_rows, rounded_up), length=length)


def _lay_out(rows: Sequence[PackedRow], requests: Sequence[ScoringRequest], *, row_count: int, length: int) -> TreeBatch:
    """Arrays of `row_count` rows of `length` tokens, of which the last rows are empty where there are fewer `rows`."""
    tokens_BT, positions_BT, ends_BT = np.zeros((3, row_count, length), np.int32)
    target_indices: dict[tuple[int, int], int] = {}
    """(flat position, target id) to its index among the M: equal targets of requests with a common prefix are scored once."""
    scored: dict[int, list[int]] = {}
    for row_number, row in enumerate(rows):
        end = 0  # of what is filled of the row
        for tree in row.trees:
            previous: tuple[int, ...] = ()
            columns: list[int] = []  # where the tokens of the path before lie in the row
            for path, number in zip(tree.paths, tree.requests, strict=True):
                depth = common_prefix_length(previous, path)
                begin = end
                end += len(path) - depth
                ends_BT[row_number, columns[depth:]] = begin  # what the path does not go on from is complete
                tokens_BT[row_number, begin:end] = path[depth:]
                positions_BT[row_number, begin:end] = range(depth, len(path))
                previous, columns = path, [*columns[:depth], *range(begin, end)]
                context, continuation = requests[number]
                predicting = columns[len(context) - 1 :]  # the last token of the context predicts the first target
                scored[number] = []
                for column, target in zip(predicting, continuation, strict=True):
                    index = target_indices.setdefault((row_number * length + column, target), len(target_indices))
                    scored[number].append(index)
            ends_BT[row_number, columns] = end
    # M is B x T for nearly every batch, which keeps the number of shapes small; more where branches end in many targets
    M = max(row_count * length, _next_power_of_two(len(target_indices)))
    where_M, targets_M = np.pad(np.array(list(target_indices), np.int32).T, ((0, 0), (0, M - len(target_indices))))
    return TreeBatch(tokens_BT, positions_BT, ends_BT, where_M, targets_M, np.int32(len(target_indices)), scored)
