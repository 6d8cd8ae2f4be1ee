"""Numbers from scores: every normalisation of a choice's likelihood side by side, means, and their uncertainty."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llama_jax.evaluation.task import Estimate, Item, LikelihoodAnswer, LikelihoodRequest, Verdict

NORMALISATIONS = ("raw", "char", "byte", "token", "answer")
"""Of log P(c | context): as it is; divided by the characters, the bytes or the tokens of c, one leading space not counted
(of characters and bytes); less log P(c | "Answer:") (section 3, Common Sense Reasoning)."""


def normalised_logprobs(
    choices: Sequence[str], scores: Sequence[LikelihoodAnswer], *, answers: Sequence[LikelihoodAnswer]
) -> dict[str, list[float]]:
    """A list as long as `choices` for each of NORMALISATIONS; `answers` are the scores after the bare answer context."""
    texts = [choice.removeprefix(" ") for choice in choices]
    raw = [score.logprob for score in scores]
    sizes = {"char": [len(text) for text in texts], "byte": [len(text.encode()) for text in texts],
             "token": [score.tokens for score in scores]}
    values = {"raw": raw} | {name: [value / max(size, 1) for value, size in zip(raw, column, strict=True)]
                             for name, column in sizes.items()}
    return values | {"answer": [value - answer.logprob for value, answer in zip(raw, answers, strict=True)]}


def judge_choices(item: Item, given: Sequence[LikelihoodAnswer]) -> Verdict:
    """Which choice each normalisation takes, and whether that is the gold one.

    The first half of the requests are the choices after their contexts, the second half the same after the answer context.
    """
    count = len(item.requests) // 2
    continuations = [request.continuation for request in item.requests[:count] if isinstance(request, LikelihoodRequest)]
    values = normalised_logprobs(continuations, given[:count], answers=given[count:])
    picked = {name: int(np.argmax(column)) for name, column in values.items()}
    return Verdict({f"acc_{name}": float(choice == item.gold) for name, choice in picked.items()}, picked)


def mean_estimate(values: Sequence[float]) -> Estimate:
    """Mean, and the standard error of a mean of independent items (n - 1 in the variance)."""
    count = len(values)
    average = math.fsum(values) / count
    if count < 2:
        return Estimate(average, None, count)
    variance = math.fsum((value - average) ** 2 for value in values) / (count - 1)
    return Estimate(average, math.sqrt(variance / count), count)


def ratio_estimate(values: Sequence[float], weights: Sequence[float]) -> Estimate:
    """sum(values) / sum(weights) over independent items, its standard error by linearisation."""
    total, count = math.fsum(weights), len(values)
    quotient = math.fsum(values) / total
    if count < 2:
        return Estimate(quotient, None, count)
    residuals = math.fsum((value - quotient * weight) ** 2 for value, weight in zip(values, weights, strict=True))
    return Estimate(quotient, math.sqrt(residuals * count / (count - 1)) / total, count)


def exponential_estimate(estimate: Estimate) -> Estimate:
    """exp of a number, the error with it: perplexity from nats."""
    value = math.exp(min(estimate.value, 700.0))
    return Estimate(value, None if estimate.stderr is None else value * estimate.stderr, estimate.count)


def metric_means(verdicts: Sequence[Verdict]) -> dict[str, Estimate]:
    """Of every metric over the items that have it, in the order in which they are first met."""
    columns: dict[str, list[float]] = {}
    for verdict in verdicts:
        for name, value in verdict.metrics.items():
            columns.setdefault(name, []).append(float(value))
    return {name: mean_estimate(values) for name, values in columns.items()}


def means_by_tag(items: Sequence[Item], verdicts: Sequence[Verdict]) -> dict[str, dict[str, dict[str, Estimate]]]:
    """means() of the items of each value of each tag: result[tag][value][metric]."""
    groups: dict[str, dict[str, list[Verdict]]] = {}
    for item, verdict in zip(items, verdicts, strict=True):
        for tag, value in item.tags.items():
            groups.setdefault(tag, {}).setdefault(value, []).append(verdict)
    return {tag: {value: metric_means(some) for value, some in sorted(values.items())} for tag, values in groups.items()}


class PairedDifference(NamedTuple):
    """Of two runs on the same items, first less second."""

    value: float
    stderr: float | None
    p_value: float | None
    """Two-sided: how often chance alone would part two equal models this far."""
    count: int


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedDifference:
    """Mean difference item by item: for rights and wrongs McNemar's exact test, else the normal approximation."""
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
    """Two-sided p-value of `wins` against `losses` under even chances, ties left out."""
    n, k = wins + losses, max(wins, losses)
    if n == 0:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k, n + 1)]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))
