"""Row n is a function of (sources, shares, seed, n), shares hold at every n, and every window comes once per epoch."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.data.mixture import Mixture
from llama_jax.data.segments import integer_shares, split_rows
from llama_jax.data.windows import TokenSource


@pytest.fixture
def sources(folder_of) -> list[TokenSource]:
    """Three sources of 9, 30 and 1 windows of 4 tokens."""
    return [TokenSource(folder_of(name, [[token] * length]), 4)
            for name, token, length in (("a", 3, 34), ("b", 4, 118), ("c", 5, 2))]


def test_the_first_rows_are_what_they_always_were(sources):
    assert list(map(len, sources)) == [9, 30, 1]
    mixture = Mixture(sources, [0.5, 0.3, 0.2], seed=7)
    assert [mixture[n].source for n in range(20)] == [0, 1, 0, 1, 0, 2, 0, 1, 0, 1, 0, 2, 0, 1, 0, 2, 0, 1, 0, 1]
    assert [mixture[n].index for n in range(10)] == [0, 0, 1, 1, 2, 0, 3, 2, 4, 3]
    assert [mixture[n].window for n in range(10)] == [1, 15, 3, 0, 6, 0, 7, 9, 0, 2]


def test_a_row_depends_on_nothing_but_its_number(sources):
    mixture, again = Mixture(sources, [0.5, 0.3, 0.2], seed=7), Mixture(sources, [5, 3, 2], seed=7)
    rows = [mixture[n] for n in range(500)]
    for n in np.random.default_rng(0).permutation(500):
        assert again[int(n)] == rows[n]
    np.testing.assert_array_equal(again.tokens(123), sources[rows[123].source].window(rows[123].window))


def test_every_window_once_an_epoch_in_an_order_of_its_own(sources):
    mixture = Mixture(sources, [0.5, 0.3, 0.2], seed=7)
    rows = [mixture[n] for n in range(400)]
    for number, source in enumerate(sources):
        windows = [row.window for row in rows if row.source == number]
        assert [row.index for row in rows if row.source == number] == list(range(len(windows)))
        epochs = [windows[at : at + len(source)] for at in range(0, len(windows) - len(source) + 1, len(source))]
        assert len(epochs) >= 4 and all(sorted(epoch) == list(range(len(source))) for epoch in epochs)
        if len(source) > 1:
            assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_seeds_and_sources_have_orders_of_their_own(folder_of):
    twins = [TokenSource(folder_of(name, [[3] * 398]), 4) for name in ("a", "b")]
    orders = {(seed, number): [row.window for n in range(200) if (row := mixture[n]).source == number]
              for seed in (0, 1, 2) for mixture in [Mixture(twins, [1, 1], seed=seed)] for number in (0, 1)}
    assert len({tuple(order) for order in orders.values()}) == 6
    assert all(order != sorted(order) for order in orders.values())


SHARES = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8)


@given(shares=SHARES, n=st.integers(0, 10**12))
def test_one_more_row_is_one_more_row_of_one_source(shares, n):
    before, after = np.array(split_rows(n, integer_shares(shares))), np.array(split_rows(n + 1, integer_shares(shares)))
    assert before.sum() == n
    assert sorted(after - before) == [0] * (len(shares) - 1) + [1]


@given(shares=SHARES, rows=st.integers(0, 10**9))
def test_shares_hold_at_every_row(shares, rows):
    counts = np.array(split_rows(rows, integer_shares(shares)))
    np.testing.assert_array_less(np.abs(counts - np.array(Mixture.normalise(shares)) * rows), len(shares) + 0.01)


def test_table_1_holds_to_one_percent_of_each_share(folder_of):
    shares = [0.67, 0.15, 0.045, 0.045, 0.045, 0.025, 0.02]
    mixture = Mixture([TokenSource(folder_of(str(n), [[3] * 60]), 4) for n in range(7)], shares, seed=0)
    counts = Counter(mixture[n].source for n in range(5000))
    for number, share in enumerate(shares):
        assert counts[number] / 5000 == pytest.approx(share, rel=0.01)


@pytest.mark.parametrize("rows", [0, 1, 2, 57, 400])
def test_the_ledger_is_the_count(sources, rows):
    mixture = Mixture(sources, [0.5, 0.3, 0.2], seed=7)
    counts = Counter(sources[mixture[n].source].name for n in range(rows))
    assert {name: (seen.tokens, seen.epochs) for name, seen in mixture.ledger(rows).items()} == {
        source.name: (4 * counts[source.name], counts[source.name] / len(source)) for source in sources
    }


def test_a_small_source_comes_again_and_again(sources):
    seen = Mixture(sources, [0.5, 0.3, 0.2], seed=7).ledger(4000)
    assert seen["c"].epochs == pytest.approx(800, abs=2)
    assert (seen["a"].tokens, seen["a"].epochs) == (8000, 2000 / 9)


def test_a_run_of_any_length_is_counted_at_once(sources):
    seen = Mixture(sources, [1, 1, 1e-9], seed=7).ledger(10**15)
    assert seen["c"].tokens == pytest.approx(4 * 10**15 / (2 + 1e-9) * 1e-9, rel=0.01)


def test_the_first_epoch_of_one_source_reads_every_token(folder_of):
    source = TokenSource(folder_of("x", [list(range(3 + n, 90)) for n in range(0, 80, 9)]), 4)
    mixture = Mixture([source], [1], seed=3)
    rows = sorted(tuple(mixture.tokens(n)) for n in range(len(source)))
    assert rows == sorted(tuple(source.window(n)) for n in range(len(source)))
    assert len(set(rows)) > 50
