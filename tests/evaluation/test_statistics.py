"""Means, standard errors and p-values against closed forms."""

import math

import pytest

from llama_jax.evaluation.statistics import (
    exponential_estimate,
    mean_estimate,
    means_by_tag,
    metric_means,
    paired_difference,
    ratio_estimate,
    sign_test,
)
from llama_jax.evaluation.task import Item, Verdict


def test_mean_and_its_error():
    estimate = mean_estimate([1, 0, 0, 1, 1])
    assert estimate == (0.6, pytest.approx(math.sqrt(0.6 * 0.4 / 4)), 5)
    assert mean_estimate([0.25]) == (0.25, None, 1)


def test_ratio_of_equal_weights_is_a_mean():
    values = [1.0, 3.0, 2.0, 7.0]
    assert ratio_estimate(values, [1.0] * 4) == pytest.approx(mean_estimate(values))
    assert ratio_estimate([2.0, 4.0], [1.0, 2.0]).stderr == pytest.approx(0)
    assert exponential_estimate(mean_estimate([1.0, 1.0])) == (pytest.approx(math.e), 0.0, 2)


def test_metrics_count_the_items_that_have_them():
    verdicts = [Verdict({"a": 1, "b": 1}), Verdict({"a": 0}), Verdict({"a": 1})]
    found = [(name, n.value, n.count) for name, n in metric_means(verdicts).items()]
    assert found == [("a", pytest.approx(2 / 3), 3), ("b", 1, 1)]
    items = [Item(str(n), (), tags={"kind": kind}) for n, kind in enumerate("xyx")]
    assert means_by_tag(items, verdicts)["kind"]["x"]["a"].value == 1


def test_paired_differences():
    """8 wins and 2 losses: 2 * (C(10,8) + C(10,9) + C(10,10)) / 2**10."""
    first, second = [1.0] * 8 + [0.0] * 2 + [1.0] * 10, [0.0] * 8 + [1.0] * 2 + [1.0] * 10
    difference = paired_difference(first, second)
    assert (difference.value, difference.count) == (0.3, 20)
    assert difference.p_value == pytest.approx(2 * (45 + 10 + 1) / 1024)
    assert sign_test(0, 0) == 1.0 and sign_test(5, 5) == 1.0
    values = paired_difference([0.5, 1.5, 2.0, 4.0], [0.0, 1.0, 2.5, 2.0])
    z = 0.625 / math.sqrt(sum((d - 0.625) ** 2 for d in (0.5, 0.5, -0.5, 2.0)) / 3 / 4)
    assert values.p_value == pytest.approx(math.erfc(z / math.sqrt(2)))
    assert paired_difference([0.5, 0.5], [0.5, 0.5]).p_value == 1.0
