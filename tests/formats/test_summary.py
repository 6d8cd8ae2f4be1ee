"""Statistics of a tensor are numpy's in float64, in any layout and dtype, and whatever is not finite is counted apart."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.formats import summary
from llama_jax.formats.base import STORED_DTYPES
from llama_jax.formats.summary import PERCENTILES, corner, percentiles, summarize

SPECIAL = [np.nan, np.inf, -np.inf]


def array_of(seed: int, shape: tuple[int, ...], dtype: str, special: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3) + rng.integers(-5, 5)).astype(STORED_DTYPES[dtype])
    if special:
        values.reshape(-1)[rng.choice(values.size, min(special, values.size), replace=False)] = rng.choice(SPECIAL)
    return values


@given(seed=st.integers(0, 1000), shape=st.lists(st.integers(1, 9), min_size=1, max_size=3), special=st.integers(0, 4),
       dtype=st.sampled_from([*STORED_DTYPES]), turned=st.booleans(), block=st.integers(1, 50))
def test_against_numpy(seed, shape, special, dtype, turned, block):
    array = array_of(seed, tuple(shape), dtype, special)
    array = array.T if turned else array
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "_BLOCK", block)
        found = summarize(array)
    finite = array.astype(np.float64)[np.isfinite(array.astype(np.float64))]
    assert found.non_finite == array.size - finite.size == min(special, array.size)
    if not finite.size:
        assert found[:4] == (None, None, None, None) and set(percentiles(array).values()) == {None}
        return
    np.testing.assert_allclose(found[:4], [finite.mean(), finite.std(), finite.min(), finite.max()], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(list(percentiles(array).values()), np.percentile(finite, PERCENTILES), rtol=1e-5, atol=1e-6)


def test_large_values_and_offsets_keep_their_digits():
    """The sum of squares would overflow in float32, and lose the variance of values far from zero."""
    found = summarize(np.array([3e38, -3e38], np.float32))
    assert found.mean == 0 and found.std == pytest.approx(3e38)
    values = (1e4 + np.random.default_rng(0).standard_normal(3_000_000)).astype(np.float32)
    assert summarize(values).std == pytest.approx(values.astype(np.float64).std(), rel=1e-9)


def test_a_tensor_is_not_copied():
    stored = np.zeros((30, 20), np.float32)
    for view in (stored.T, stored.T.reshape(20, 5, 6), stored.T.reshape(4, 5, 30)):
        assert np.shares_memory(view.ravel(order="K"), stored)


def test_corner():
    array = np.arange(4 * 5 * 7, dtype=np.float32).reshape(4, 5, 7)
    assert corner(array, 2) == [[0, 1], [7, 8]] and corner(array[0, 0], 3) == [0, 1, 2]
    assert np.shape(corner(array[0], 6)) == (5, 6)
    array[0, 0, :3] = SPECIAL
    assert json.loads(json.dumps(corner(array, 4), allow_nan=False))[0] == ["nan", "inf", "-inf", 3]
