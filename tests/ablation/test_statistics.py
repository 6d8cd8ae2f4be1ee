"""Properties of the statistics that hold for every study."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llama_jax.ablation.statistics import (
    MeanDifference,
    critical_value,
    detectable_difference,
    holm_adjusted,
    mean_difference,
    p_value_of,
    t_quantile,
)


@given(st.floats(0.6, 0.99999), st.integers(1, 200))
def test_quantiles_are_those_of_scipy(probability, freedom):
    assert t_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-9)


@given(st.integers(2, 5), st.integers(2, 12), st.integers(0, 1000))
def test_batches_of_one_size_give_the_mean_squares_of_a_two_way_layout(runs, batches, seed):
    random = np.random.default_rng(seed)
    d_RB = random.standard_normal((runs, batches)) + 3 * np.tile(random.standard_normal(batches), (runs, 1))
    found = mean_difference(d_RB, np.full(batches, 512.0))
    rows, columns, mean = d_RB.mean(1), d_RB.mean(0), d_RB.mean()
    seeds, texts = batches * rows.var(ddof=1), runs * columns.var(ddof=1)
    residual = ((d_RB - rows[:, None] - columns + mean)**2).sum() / (runs - 1) / (batches - 1)
    assert found.value == pytest.approx(mean)
    assert found.stderr**2 == pytest.approx((seeds + max(0.0, texts - residual)) / (runs * batches))


@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 1000), st.floats(0.1, 10))
def test_scale_shift_and_order_do_not_matter(runs, batches, seed, scale):
    random = np.random.default_rng(seed)
    d_RB, tokens_B = random.standard_normal((runs, batches)), random.integers(10, 99, batches).astype(float)
    found, again = mean_difference(d_RB, tokens_B), mean_difference(scale * d_RB[::-1, ::-1] + 1, 7 * tokens_B[::-1])
    assert again.value == pytest.approx(scale * found.value + 1)
    assert again.stderr == pytest.approx(scale * found.stderr)
    np.testing.assert_allclose(critical_value(again), critical_value(found), rtol=1e-6)


def test_seeds_alone_give_the_t_interval_over_seeds():
    d_RB = np.repeat(np.array([[0.1], [0.3], [0.25]]), 8, axis=1)
    found = mean_difference(d_RB, np.arange(1.0, 9.0))
    expected = stats.t.interval(0.95, 2, loc=d_RB[:, 0].mean(), scale=d_RB[:, 0].std(ddof=1) / math.sqrt(3))
    half = critical_value(found) * found.stderr
    assert (found.value - half, found.value + half) == pytest.approx(expected)
    assert p_value_of(found) == pytest.approx(stats.ttest_1samp(d_RB[:, 0], 0).pvalue, rel=1e-6)


def test_one_seed_gives_the_t_interval_over_batches():
    d_RB = np.random.default_rng(0).standard_normal((1, 12))
    found = mean_difference(d_RB, np.ones(12))
    assert found.seed_variance == 0
    assert critical_value(found) * found.stderr == pytest.approx(stats.t.ppf(0.975, 11) * d_RB.std(ddof=1) / math.sqrt(12))


def test_one_seed_and_one_batch_tell_nothing_of_the_noise():
    found = mean_difference(np.array([[0.5]]), np.array([9.0]))
    assert found.value == 0.5 and math.isnan(critical_value(found)) and math.isnan(p_value_of(found))
    assert detectable_difference(found) == 0 or math.isnan(detectable_difference(found))


def test_equal_arms_have_an_interval_of_no_width():
    found = mean_difference(np.zeros((3, 5)), np.ones(5))
    assert found.value == found.stderr == 0 and p_value_of(found) == 1.0 and detectable_difference(found) == 0


@given(st.integers(0, 500))
def test_the_p_value_is_below_5_percent_where_the_interval_excludes_0(seed):
    random = np.random.default_rng(seed)
    found = mean_difference(random.standard_normal((3, 1)) + random.standard_normal((3, 6)) + 1.5, random.uniform(1, 2, 6))
    excludes = abs(found.value) > critical_value(found) * found.stderr
    assert (p_value_of(found) < 0.05) == excludes


@settings(max_examples=15)
@given(st.floats(0.01, 10), st.floats(0.01, 10))
def test_more_noise_hides_more(seeds, batches):
    small = MeanDifference(np.array(0.0), np.array(seeds), np.array(batches), 3, 20)
    large = small._replace(seed_variance=np.array(4 * seeds), batch_variance=np.array(4 * batches))
    assert detectable_difference(large) == pytest.approx(2 * detectable_difference(small))
    assert detectable_difference(small) > critical_value(small) * small.stderr


def test_holm():
    assert holm_adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_adjusted([]) == [] and holm_adjusted([0.9, 0.8]) == pytest.approx([1.0, 1.0])
