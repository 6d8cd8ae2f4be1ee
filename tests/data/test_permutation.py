"""The stateless permutation is one, depends on its keys, favours no place, and never changes with a version."""

from collections import Counter
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.data.permutation import permutation_keys, permuted


@given(size=st.integers(1, 500), seed=st.integers(0, 2**32))
def test_an_order_is_a_permutation(size, seed):
    assert sorted(permuted(place, size, keys=permutation_keys(seed)) for place in range(size)) == list(range(size))


@given(size=st.integers(1, 10**12), data=st.data())
def test_places_of_a_long_order_differ(size, data):
    places = data.draw(st.sets(st.integers(0, size - 1), min_size=min(size, 5), max_size=20))
    found = {permuted(place, size, keys=permutation_keys(1, 2)) for place in places}
    assert len(found) == len(places) and all(0 <= window < size for window in found)


def test_the_order_is_what_it_always_was():
    assert [permuted(place, 10, keys=permutation_keys(7, 0, 0)) for place in range(10)] == [1, 3, 6, 7, 0, 5, 8, 9, 4, 2]


@pytest.mark.parametrize("size", [3, 4])
def test_every_order_of_few_comes_equally_often(size):
    orders = Counter(tuple(permuted(place, size, keys=permutation_keys(seed)) for place in range(size)) for seed in range(6000))
    wanted = 6000 / len(list(permutations(range(size))))
    assert set(orders) == set(permutations(range(size)))
    assert all(abs(count - wanted) < 6 * wanted**0.5 for count in orders.values())


def test_no_place_and_no_neighbour_is_favoured():
    size, orders = 50, 4000
    drawn = [[permuted(place, size, keys=permutation_keys(seed, 1)) for place in range(size)] for seed in range(orders)]
    by_place = Counter((place, window) for order in drawn for place, window in enumerate(order))
    steps = Counter((b - a) % size for order in drawn for a, b in pairwise(order))
    for counts, cells in ((by_place, size * size), (steps, size - 1)):
        wanted = sum(counts.values()) / cells
        assert sum((counts[cell] - wanted) ** 2 / wanted for cell in counts) < cells + 5 * (2 * cells) ** 0.5
        assert len(counts) == cells
