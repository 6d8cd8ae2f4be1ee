"""Rows of packed prefix trees hold every request once, with little padding and little repetition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.scoring.prefix_trees import build_prefix_trees, pack_rows, tree_batches
from tests.scoring.requests import random_requests


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(2, 4))
def test_rows_hold_every_request_once(seed, count, multiple):
    rng = np.random.default_rng(seed)
    requests = random_requests(rng, count, most=int(rng.choice([16, 200, 700])))
    trees = build_prefix_trees(requests, max_tokens=300)
    answered = []
    for rows in tree_batches(pack_rows(trees), requests, batch_tokens=1024, row_multiple=multiple):
        tokens, positions, ends = rows.tokens_BT, rows.positions_BT, rows.ends_BT
        assert len(tokens) % multiple == 0
        for request, places in rows.scored.items():
            context, continuation = requests[request]
            answered.append(request)
            assert rows.targets_M[places].tolist() == list(continuation)
            row, last = divmod(int(rows.where_M[places[-1]]), tokens.shape[1])
            seen = (np.arange(tokens.shape[1]) <= last) & (last < ends[row])
            assert tokens[row][seen].tolist() == [*context, *continuation][:-1]
            assert positions[row][seen].tolist() == list(range(seen.sum()))
    assert sorted(answered) == list(range(len(requests)))


def test_little_of_a_row_is_padding():
    """Groups of four of ordinary length: under a tenth of all positions."""
    rng = np.random.default_rng(0)
    requests = [(rng.integers(0, 9, length).tolist(), rng.integers(0, 9, rng.integers(5, 30)).tolist())
                for length in rng.integers(20, 120, 100) for _ in range(4)]
    rows = pack_rows(build_prefix_trees(requests, max_tokens=2048))
    assert sum(row.free for row in rows) < 0.1 * sum(row.length for row in rows)


@pytest.mark.parametrize("examples, repeated", [(60, 1), (300, 9 / 8)])
def test_a_shared_prefix_is_computed_once(examples, repeated):
    """Questions after the same worked examples, with choices that differ at their end: one token per distinct prefix.

    Where 2,048 tokens do not hold them all, at most an eighth is repeated.
    """
    rng = np.random.default_rng(5)
    start, requests = rng.integers(0, 512, examples).tolist(), []
    for _ in range(12 if examples == 60 else 100):
        question, choice = (rng.integers(0, 512, size).tolist() for size in (20, 6))
        requests += [([*start, *question], [*choice, *rng.integers(0, 512, 3).tolist()]) for _ in range(4)]
    texts = [[*context, *continuation[:-1]] for context, continuation in requests]
    prefixes = {tuple(text[:count]) for text in texts for count in range(1, len(text) + 1)}
    size = sum(tree.size for tree in build_prefix_trees(requests, max_tokens=2048))
    assert len(prefixes) <= size <= repeated * len(prefixes)
