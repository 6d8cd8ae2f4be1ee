"""Writes the report of a study: one offline HTML page, Markdown, PNG and JSON.

The same measurements give the same bytes, but for what was timed, which stands in the last table of the pages and under "timing"
in the JSON file.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_jax.ablation.analysis import (
    ArmAnalysis,
    Comparison,
    Extrapolation,
    Interval,
    Measurement,
    StudyAnalysis,
    analyse_study,
)
from llama_jax.ablation.findings import (
    arm_finding,
    count_spikes,
    every_run,
    extrapolation_finding,
    largest_grad_norm,
    mean_timing,
    stability_finding,
    study_findings,
)
from llama_jax.ablation.plots import study_plots
from llama_jax.ablation.tables import study_tables, timing_table
from llama_jax.config.study import Study
from llama_jax.files.atomic import write_atomic
from llama_jax.report.page import Part, Passage, write_page

METHOD = (
    "Every arm is trained with every seed on the same batches; the seed changes the initialisation. A difference is the mean "
    "over seeds of the token-weighted mean over held-out batches of arm less baseline, paired by seed and batch.",
    "Its 95% interval treats seeds and held-out batches as random (two-way random effects). The critical value is Student's over "
    "seeds or over batches, according to which contributes more variance, with a transition calibrated so that intervals cover "
    "in 93% to 97% of simulated studies with 2 to 8 seeds. With one seed, the interval is over batches only. Intervals are not "
    "corrected for the number of arms; the p-values in the column Holm are.",
)
"""How the figures come about, as the report says it; docs/ABLATIONS.md says it with equations."""


def write_study_report(folder: Path, study: Study, measurements: Sequence[Measurement], *, seeds: Sequence[int] = ()) -> None:
    """Write report.json, report.md, report.html and report-*.png.

    Args:
        folder: The study's folder.
        study: The study.
        measurements: Contents of the measurements.json of the runs so far, in any order.
        seeds: All seeds of the study, so that missing runs are named; those that occur in the measurements where not given.

    Raises:
        DataError: a measurement of an unknown arm, two of the same arm and seed, or a file that cannot be written.
    """
    analysis = analyse_study(study, measurements, seeds=seeds)
    parts = [
        _question(study),
        Passage("What is shown", study_findings(analysis), listed=True),
        Passage("Arm by arm", _arm_sentences(analysis), listed=True),
        *study_plots(analysis), *study_tables(analysis), Passage("Method", METHOD), timing_table(analysis)]
    write_page(folder, "report", title=f"Ablation study: {study.name}", parts=parts)
    data = json.dumps(_rounded(report_json(analysis)), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(folder / "report.json", data.encode() + b"\n")


def _question(study: Study) -> Part:
    return Passage("", [f"Question: {study.question}", f"Paper: {study.paper}", f"Time: {study.hours}"])


def _arm_sentences(analysis: StudyAnalysis) -> list[str]:
    baseline = analysis.study.baseline
    return [*(arm_finding(arm, baseline=baseline) for arm in analysis.ranked),
            *(extrapolation_finding(arm, found) for arm in analysis.arms.values() for found in arm.extrapolations),
            stability_finding(analysis)]


def report_json(analysis: StudyAnalysis) -> dict[str, Any]:
    """Everything that the report states, for programs; figures that are not known are NaN, which the file has as null."""
    study = analysis.study
    return {
        "study": {name: getattr(study, name) for name in ("name", "paper", "question", "expected", "hours", "baseline",
                                                          "lengths")},
        "seeds": analysis.seeds,
        "findings": {"study": study_findings(analysis), "arms": _arm_sentences(analysis)},
        "ranking": [arm.name for arm in analysis.ranked],
        "arms": {arm.name: _arm_json(arm) for arm in analysis.arms.values()},
        "steps": {name: _comparison_json(one) for name, one in analysis.steps.items()},
        "method": METHOD,
        "timing": {arm.name: {str(seed): run["timing"] for seed, run in arm.done.items()}
                   | {"mean": {name: mean_timing(arm, name) for name in
                               ("tokens_per_second", "seconds", "decode_tokens_per_second")}} for arm in analysis.arms.values()},
    }


def _arm_json(arm: ArmAnalysis) -> dict[str, Any]:
    one, runs = arm.comparison, every_run(arm)
    costs = ("parameters", "flops_per_token", "peak_bytes", "cache_bytes_per_token")
    return {
        "heldout_loss": arm.loss, "deviation_over_seeds": arm.deviation, "bits_per_byte": arm.bits_per_byte,
        "heldout_loss_by_seed": {str(seed): loss for seed, loss in arm.losses.items()},
        "difference": _comparison_json(one) if one else None,
        "not_compared_because": arm.incomparable,
        "by_length": {str(found.length): _extrapolation_json(found) for found in arm.extrapolations},
        "diverged": {str(seed): {"steps": run["steps"], "reason": run["reason"]} for seed, run in arm.diverged.items()},
        "missing_seeds": arm.missing,
        "largest_grad_norm": largest_grad_norm(arm) if runs else None, "spikes": count_spikes(arm),
        **{name: runs[0][name] if runs else None for name in costs},
        "stream_sha256": {str(seed): run["stream_sha256"] for seed, run in arm.done.items()},
        "heldout_sha256": {str(seed): run["heldout_sha256"] for seed, run in arm.done.items()},
    }


def _comparison_json(one: Comparison) -> dict[str, Any]:
    return {**_interval_json(one.difference), "stderr": one.stderr, "p_value": one.p_value, "holm_p_value": one.holm_p_value,
            "detectable": one.detectable, "seeds": one.seeds, "batches": one.batches}


def _interval_json(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _extrapolation_json(found: Extrapolation) -> dict[str, Any]:
    return {"trained_length": found.trained_length, "within": found.within, "beyond": found.beyond,
            "change": _interval_json(found.change)}


def _rounded(value: Any) -> Any:
    """JSON with floats of nine digits, which do not depend on the order of summation, and null for those that are not finite."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value
