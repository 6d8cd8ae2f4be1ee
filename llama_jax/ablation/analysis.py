"""The figures of a study from the measurements of its runs: loss per arm, differences to the baseline, extrapolation.

A measurement is the content of a run's measurements.json, as a dict. Runs that diverged have no held-out loss and take no part in
means and differences; every figure says how many runs it is of.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from llama_jax.ablation.statistics import (
    critical_value,
    detectable_difference,
    holm_adjusted,
    mean_difference,
    p_value_of,
)
from llama_jax.config.study import Study
from llama_jax.errors import DataError

Measurement = dict[str, Any]


class Interval(NamedTuple):
    """An estimate with its 95% confidence interval, whose ends are NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)

    @property
    def sign(self) -> int:
        """-1 or 1 where the whole interval lies on that side of 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Comparison:
    """Held-out loss of an arm less that of the baseline in nats per token, paired by seed and held-out batch."""

    difference: Interval
    stderr: float
    seeds: tuple[int, ...]
    """Seeds with which both arms finished."""
    batches: int
    """Held-out batches."""
    detectable: float
    """The smallest true difference that 80% of such studies would find."""
    p_value: float
    """NaN with one seed, because an interval over batches alone says nothing of other seeds."""
    holm_p_value: float = math.nan
    """The p-value after Holm's correction for the number of arms."""


@dataclass(frozen=True)
class Extrapolation:
    """Loss beyond the trained length, in nats per token, with intervals over seeds (Student's t)."""

    length: int
    """Tokens per row of the measurement."""
    trained_length: int
    within: float
    """Loss at the positions of the second half of the trained length."""
    beyond: float
    """Loss at the positions after the trained length."""
    change: Interval
    """`beyond` less `within`."""


@dataclass(frozen=True)
class ArmAnalysis:
    """What is known of one arm."""

    name: str
    done: dict[int, Measurement]
    """Measurements of the runs that finished, by seed."""
    diverged: dict[int, Measurement]
    """Measurements of the runs whose loss was not finite, by seed."""
    missing: tuple[int, ...]
    """Seeds that have no measurement."""
    losses: dict[int, float] = field(default_factory=dict)
    """Held-out loss in nats per token, by seed."""
    comparison: Comparison | None = None
    """None for the baseline, and where there is nothing to compare."""
    incomparable: str = ""
    """Why runs that finished are not compared with the baseline, as a clause."""
    extrapolations: tuple[Extrapolation, ...] = ()
    """One per measured length."""

    @property
    def loss(self) -> float:
        """Mean held-out loss over seeds in nats per token; NaN without a finished run."""
        return float(np.mean(list(self.losses.values()))) if self.losses else math.nan

    @property
    def deviation(self) -> float:
        """Sample standard deviation of the held-out loss over seeds, the seed noise; NaN with fewer than two."""
        return float(np.std(list(self.losses.values()), ddof=1)) if len(self.losses) > 1 else math.nan

    @property
    def bits_per_byte(self) -> float:
        """Mean held-out loss in bits per byte of the text."""
        return self.loss / math.log(2) / float(np.mean([run["bytes_per_token"] for run in self.done.values()] or [math.nan]))


@dataclass(frozen=True)
class StudyAnalysis:
    """A study with everything that its report states."""

    study: Study
    seeds: tuple[int, ...]
    arms: dict[str, ArmAnalysis]
    """By name, in the study's order."""
    steps: dict[str, Comparison] = field(default_factory=dict)
    """Of a path: each arm less the arm before it."""

    @property
    def baseline(self) -> ArmAnalysis:
        """The arm that the others are compared with."""
        return self.arms[self.study.baseline]

    @property
    def ranked(self) -> list[ArmAnalysis]:
        """Arms by mean held-out loss, the lowest first; those without one are last, in the study's order."""
        return sorted(self.arms.values(), key=lambda arm: (not arm.losses, arm.loss if arm.losses else 0.0))


def analyse_study(study: Study, measurements: Sequence[Measurement], *, seeds: Sequence[int] = ()) -> StudyAnalysis:
    """Group measurements by arm, average them and compare each arm with the baseline.

    Args:
        study: The study.
        measurements: Contents of measurements.json, in any order; runs may be missing.
        seeds: All seeds of the study; those that occur in the measurements where they are not given.

    Raises:
        DataError: a measurement of an unknown arm, or two of the same arm and seed.
    """
    by_arm: dict[str, dict[int, Measurement]] = {arm.name: {} for arm in study.arms}
    for run in measurements:
        if run["arm"] not in by_arm:
            raise DataError(f"a run of arm {run['arm']} is not of study {study.name}, whose arms are {', '.join(by_arm)}; "
                            f"remove its folder.")
        if run["seed"] in by_arm[run["arm"]]:
            raise DataError(f"arm {run['arm']} of study {study.name} has two measurements with seed {run['seed']}; remove one.")
        by_arm[run["arm"]][run["seed"]] = run
    planned = tuple(sorted({*seeds, *(run["seed"] for run in measurements)}))
    base = by_arm[study.baseline]
    arms = [_analyse_arm(arm.name, runs=by_arm[arm.name], base=base, study=study, seeds=planned) for arm in study.arms]
    return StudyAnalysis(study, planned, {arm.name: arm for arm in _with_holm(arms)}, _steps(arms) if study.path else {})


def _steps(arms: list[ArmAnalysis]) -> dict[str, Comparison]:
    """Each arm less the one before it, where both have finished runs of one seed."""
    compared = {arm.name: _compare(arm.done, before.done)[0] for before, arm in pairwise(arms)}
    return {name: one for name, one in compared.items() if one}


def _finished(runs: dict[int, Measurement]) -> dict[int, Measurement]:
    return {seed: runs[seed] for seed in sorted(runs) if runs[seed]["status"] == "done"}


def _analyse_arm(
    name: str, *, runs: dict[int, Measurement], base: dict[int, Measurement], study: Study, seeds: tuple[int, ...]
) -> ArmAnalysis:
    done = _finished(runs)
    diverged = {seed: runs[seed] for seed in sorted(runs) if seed not in done}
    losses = {seed: float(np.divide(*np.sum(run["heldout"], axis=0))) for seed, run in done.items()}
    comparison, incomparable = None, ""
    if name != study.baseline:
        comparison, incomparable = _compare(done, _finished(base))
    trained = next(arm for arm in study.arms if arm.name == name).config.data.sequence_length
    found = (_extrapolation(done, length=length, trained=trained) for length in study.lengths)
    return ArmAnalysis(name, done, diverged, tuple(seed for seed in seeds if seed not in runs), losses, comparison, incomparable,
                       tuple(one for one in found if one is not None))


def _compare(done: dict[int, Measurement], base: dict[int, Measurement]) -> tuple[Comparison | None, str]:
    """An arm's finished runs less the baseline's with the same seeds; else None, and the reason as a clause."""
    if not done:
        return None, ""
    shared = tuple(seed for seed in done if seed in base)
    if not shared:
        return None, "no seed has a finished run of both this arm and the baseline"
    pairs = [(np.asarray(done[seed]["heldout"]), np.asarray(base[seed]["heldout"])) for seed in shared]
    tokens_B = pairs[0][1][:, 1]
    if any(not np.array_equal(one[:, 1], tokens_B) for pair in pairs for one in pair) or len(
            {runs[seed]["heldout_sha256"] for seed in shared for runs in (done, base)}) > 1:
        return None, "its held-out batches are not the baseline's"
    estimate = mean_difference(np.stack([(arm[:, 0] - other[:, 0]) / tokens_B for arm, other in pairs]), tokens_B)
    half, value = float(critical_value(estimate) * estimate.stderr), float(estimate.value)
    return Comparison(Interval(value, value - half, value + half), float(estimate.stderr), shared, len(tokens_B),
                      detectable_difference(estimate), p_value_of(estimate) if len(shared) > 1 else math.nan), ""


def _with_holm(arms: list[ArmAnalysis]) -> list[ArmAnalysis]:
    """The arms with p-values corrected for the number of comparisons that have one."""
    compared = [(arm, arm.comparison) for arm in arms if arm.comparison and not math.isnan(arm.comparison.p_value)]
    adjusted = holm_adjusted([comparison.p_value for _, comparison in compared])
    corrected = {arm.name: replace(arm, comparison=replace(comparison, holm_p_value=p_value))
                 for (arm, comparison), p_value in zip(compared, adjusted, strict=True)}
    return [corrected.get(arm.name, arm) for arm in arms]


def _extrapolation(done: dict[int, Measurement], *, length: int, trained: int) -> Extrapolation | None:
    """Loss at the positions after the trained length against its second half; None where no run was measured so far."""
    pairs = []
    for run in done.values():
        buckets = np.asarray(run["by_position"].get(str(length)) or (), dtype=float).reshape(-1, 3)
        within = buckets[(buckets[:, 0] >= trained / 2) & (buckets[:, 0] < trained)].sum(0)
        beyond = buckets[buckets[:, 0] >= trained].sum(0)
        if within[2] and beyond[2]:
            pairs.append((within[1] / within[2], beyond[1] / beyond[2]))
    if not pairs:
        return None
    pairs_R2 = np.asarray(pairs)
    change = mean_difference((pairs_R2[:, 1] - pairs_R2[:, 0])[:, None], np.ones(1))
    half, value = float(critical_value(change) * change.stderr), float(change.value)
    within, beyond = map(float, pairs_R2.mean(0))
    return Extrapolation(length, trained, within, beyond, Interval(value, value - half, value + half))
