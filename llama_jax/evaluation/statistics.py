"""Metrics over items and their uncertainty: means, ratios, standard errors and paired tests."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from llama_jax.evaluation.task import Estimate, Item, Verdict


def mean_estimate(values: Sequence[float]) -> Estimate:
    """Mean of independent values with its standard error (n - 1 in the variance)."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Estimate(mean, None, count)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Estimate(mean, math.sqrt(variance / count), count)


def ratio_estimate(values: Sequence[float], weights: Sequence[float]) -> Estimate:
    """sum(values) / sum(weights) over independent items; the standard error is by linearisation (the delta method)."""
    total, count = math.fsum(weights), len(values)
    ratio = math.fsum(values) / total
    if count < 2:
        return Estimate(ratio, None, count)
    residuals = math.fsum((value - ratio * weight) ** 2 for value, weight in zip(values, weights, strict=True))
    return Estimate(ratio, math.sqrt(residuals * count / (count - 1)) / total, count)


def exponential_estimate(estimate: Estimate) -> Estimate:
    """exp of an estimate and of its uncertainty (the delta method), as perplexity from nats per token."""
    value = math.exp(min(estimate.value, 700.0))  # exp(710) overflows
    return Estimate(value, None if estimate.stderr is None else value * estimate.stderr, estimate.count)


def metric_means(verdicts: Sequence[Verdict]) -> dict[str, Estimate]:
    """Mean of every metric over the items that have it, in the order in which the metrics first appear."""
    columns: dict[str, list[float]] = {}
    for verdict in verdicts:
        for name, value in verdict.metrics.items():
            columns.setdefault(name, []).append(float(value))
    return {name: mean_estimate(values) for name, values in columns.items()}


def means_by_tag(items: Sequence[Item], verdicts: Sequence[Verdict]) -> dict[str, dict[str, dict[str, Estimate]]]:
    """`metric_means` over the items of each value of each tag: result[tag][value][metric]."""
    groups: dict[str, dict[str, list[Verdict]]] = {}
    for item, verdict in zip(items, verdicts, strict=True):
        for tag, value in item.tags.items():
            groups.setdefault(tag, {}).setdefault(value, []).append(verdict)
    return {tag: {value: metric_means(some) for value, some in sorted(values.items())} for tag, values in groups.items()}


class PairedDifference(NamedTuple):
    """Mean difference between two models on the same items: first minus second."""

    value: float
    stderr: float | None
    """Standard error."""
    p_value: float | None
    """Two-sided: the probability of a difference at least this large between models that are equally good."""
    count: int


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedDifference:
    """Mean of the item-by-item differences, with McNemar's exact test where all values are 0 or 1, else a z-test."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    estimate = mean_estimate(differences)
    if set(first) | set(second) <= {0.0, 1.0}:
        p_value = sign_test(differences.count(1.0), differences.count(-1.0))
    elif not estimate.stderr:
        p_value = 1.0 if estimate.value == 0 else None
    else:
        p_value = math.erfc(abs(estimate.value) / estimate.stderr / math.sqrt(2))
    return PairedDifference(estimate.value, estimate.stderr, p_value, estimate.count)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of the exact binomial test of `wins` against `losses` with even chances; ties are left out."""
    n, k = wins + losses, max(wins, losses)
    if n == 0:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k, n + 1)]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))
