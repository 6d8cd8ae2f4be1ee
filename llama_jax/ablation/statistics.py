"""The statistics of a study: paired differences of held-out loss, confidence intervals, and what could have been detected.

The difference of two arms with the same seed s on the same held-out batch b is modelled as

    d_sb = difference + seed_s + batch_b + residual_sb,

three independent random effects, so that an interval speaks of other seeds and of other held-out text. The estimate is the mean
over seeds of the token-weighted mean over batches. The variance of the estimate is the sum of what the seeds contribute and what
the choice of batches contributes, each estimated apart (`mean_difference`). With one seed, the first is unknown and taken as 0.

The half width of an interval is a critical value times the standard error. With few seeds, Student's t with Satterthwaite's
degrees of freedom is too narrow: with two seeds, whose noise outweighs that of the batches, its 95% intervals cover in 87% of
studies, because where two seeds happen to agree, the estimated variance falls and the degrees of freedom rise with it. The
critical value here (`critical_value`) is that of batches - 1 degrees of freedom where the batches contribute most, and that of
seeds - 1 as soon as the seeds contribute a fair part. Where it passes from one to the other was calibrated by simulation: over 2
to 8 seeds, 10 to 60 batches of unequal size and every proportion of the three variances, 95% intervals cover in 93.3% to 96.9%
of studies (docs/ABLATIONS.md; tests/ablation/test_coverage.py).

Suffixes: R runs of an arm, one per seed; B held-out batches. Functions of `loss_RB` take any leading dimensions.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

SWITCH, STEEPNESS, STRICTNESS = 0.3, 6, 1.6
"""Calibrate `critical_value`: where it passes from one number of degrees of freedom to the other, how fast, and how much earlier
for small alpha."""

REPETITIONS = 4000
"""Simulated repetitions of a study from which the smallest detectable difference is read."""


class MeanDifference(NamedTuple):
    """An estimated difference and the two contributions to its variance; arrays where several were estimated at once."""

    value: np.ndarray
    """Mean over runs of the token-weighted mean over batches."""
    seed_variance: np.ndarray
    """Contribution of the seeds to the variance of `value`; 0 with one seed."""
    batch_variance: np.ndarray
    """Contribution of the choice of held-out batches; 0 with one batch."""
    runs: int
    """Number of seeds."""
    batches: int
    """Number of held-out batches."""

    @property
    def stderr(self) -> np.ndarray:
        """Standard error of `value`."""
        return np.sqrt(self.seed_variance + self.batch_variance)


def mean_difference(loss_RB: np.ndarray, tokens_B: np.ndarray) -> MeanDifference:
    """Token-weighted mean of paired differences, with the variance that seeds and that batches contribute.

    With weights w_b = tokens_b / sum of tokens and run means m_s = sum_b w_b d_sb: the seeds' contribution is the sample variance
    of m_s over R, which includes the residuals' part. The batches' is sum_b w_b^2 (mean_s d_sb - value)^2, corrected to be
    unbiased for batches of equal variance, less the residuals' part, which the seeds' has already. For batches of equal size the
    sum is the usual (MS_seed + MS_batch - MS_residual) / (R B) of a two-way layout, with a negative second part set to 0.

    Args:
        loss_RB: Differences in nats per token, [..., R, B].
        tokens_B: Predicted tokens of every batch.
    """
    runs, batches = loss_RB.shape[-2:]
    weights_B = tokens_B / tokens_B.sum()
    mean_R = loss_RB @ weights_B
    value = mean_R.mean(-1)
    seed_variance = mean_R.var(-1, ddof=1) / runs if runs > 1 else np.zeros_like(value)
    if batches == 1:
        return MeanDifference(value, seed_variance, np.zeros_like(value), runs, batches)
    squares = (weights_B**2).sum()
    unbiased_B = weights_B**2 * squares / (weights_B**2 * (1 - 2 * weights_B + squares)).sum()
    mean_B = loss_RB.mean(-2)
    batch_variance = (mean_B - value[..., None])**2 @ unbiased_B
    if runs > 1:
        residual_RB = loss_RB - mean_B[..., None, :] - mean_R[..., :, None] + value[..., None, None]
        batch_variance = batch_variance - (residual_RB**2).sum(-2) @ unbiased_B / ((runs - 1) * runs)
    return MeanDifference(value, seed_variance, np.maximum(batch_variance, 0.0), runs, batches)


def critical_value(difference: MeanDifference, *, alpha: float = 0.05) -> np.ndarray:
    """Standard errors between the estimate and either end of its 1 - alpha confidence interval; NaN with one seed and one batch.

    It is t_B + w (t_R - t_B), with Student's quantiles t_R of R - 1 and t_B of B - 1 degrees of freedom, w = x^6 / (x^6 + c^6),
    x = seed_variance / batch_variance and c = 0.3 (R - 1) (alpha / 0.05)^(1.6 / (R - 1)), whose last factor is 1 for alpha
    of 0.05 or more. Seeds alone (x infinite) give the t interval over seeds, which is exact; batches alone (x = 0) the one over
    batches.
    """
    runs, batches = difference.runs, difference.batches
    if runs == 1 or batches == 1:
        freedom = max(runs, batches) - 1
        return np.full_like(difference.value, t_quantile(1 - alpha / 2, freedom) if freedom else math.nan)
    t_runs, t_batches = t_quantile(1 - alpha / 2, runs - 1), t_quantile(1 - alpha / 2, batches - 1)
    switch = SWITCH * (runs - 1) * min(1.0, alpha / 0.05) ** (STRICTNESS / (runs - 1))
    total = difference.seed_variance + switch * difference.batch_variance
    share = np.divide(difference.seed_variance, total, out=np.zeros_like(total), where=total > 0)
    weight = share**STEEPNESS / (share**STEEPNESS + (1 - share)**STEEPNESS)
    return t_batches + weight * (t_runs - t_batches)


def p_value_of(difference: MeanDifference) -> float:
    """Two-sided p-value of one difference: the alpha whose confidence interval ends at 0; NaN with one seed and one batch."""
    distance, error = abs(float(difference.value)), float(difference.stderr)
    if math.isnan(float(critical_value(difference))):
        return math.nan
    if distance == 0 or error == 0:
        return 1.0 if distance == 0 else 0.0
    low, high = 1e-9, 1.0
    for _ in range(40):
        middle = math.sqrt(low * high)
        if float(critical_value(difference, alpha=middle)) * error > distance:
            low = middle
        else:
            high = middle
    return high


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """p-values of several comparisons after Holm's step-down correction (Holm 1979), in the given order."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def detectable_difference(difference: MeanDifference, *, power: float = 0.8) -> float:
    """The smallest true difference that studies like this one would find in a share `power` of repetitions; NaN without interval.

    To find it means that the 95% interval of `critical_value` excludes 0. The two variances are taken as estimated and drawn
    again from their chi-squared distributions; the difference is found by bisection over their mean power.
    """
    total = float(difference.stderr)
    if total == 0 or math.isnan(float(critical_value(difference))):
        return 0.0 if total == 0 else math.nan
    draws = np.random.default_rng(0)
    seeds, batches = (variance * draws.chisquare(max(freedom, 1), REPETITIONS) / max(freedom, 1) for variance, freedom in (
        (float(difference.seed_variance), difference.runs - 1), (float(difference.batch_variance), difference.batches - 1)))
    again = MeanDifference(np.zeros(REPETITIONS), seeds, batches, difference.runs, difference.batches)
    needed = np.sort(critical_value(again) * again.stderr) / total
    low, high = 0.0, 2 * float(needed[-1]) + 10
    for _ in range(60):
        middle = (low + high) / 2
        found = sum(_normal_cdf(middle - x) + _normal_cdf(-middle - x) for x in needed[::4]) / len(needed[::4])
        low, high = (middle, high) if found < power else (low, middle)
    return total * high


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


@lru_cache(maxsize=1000)
def t_quantile(probability: float, freedom: int) -> float:
    """Quantile above the median of Student's t distribution with whole degrees of freedom, by bisection over its exact CDF."""
    low, high = 0.0, 1.0
    while _t_inside(high, freedom) < 2 * probability - 1 and high < 1e12:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_inside(middle, freedom) < 2 * probability - 1 else (low, middle)
    return high


def _t_inside(t: float, freedom: int) -> float:
    """P(|T| < t) as a finite sum of powers of cosines (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    if freedom == 1:
        return 2 * angle / math.pi
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
