"""The tables of a study's report."""

import math

from llama_jax.ablation.analysis import ArmAnalysis, StudyAnalysis
from llama_jax.ablation.findings import (
    DECIMALS,
    count_spikes,
    every_run,
    largest_grad_norm,
    mean_timing,
    timing_findings,
)
from llama_jax.report.tables import DASH, Table
from llama_jax.terminal import clock, compact


def study_tables(analysis: StudyAnalysis) -> list[Table]:
    """Ranking, loss beyond the trained length, stability, costs and runs; those without rows are left out."""
    tables = [_ranking_table(analysis), _step_table(analysis), _extrapolation_table(analysis), _stability_table(analysis),
              _cost_table(analysis), _run_table(analysis)]
    return [table for table in tables if table.rows]


def timing_table(analysis: StudyAnalysis) -> Table:
    """Speeds and durations, which differ from machine to machine and from run to run."""
    table = Table("Timing", ["arm", "training tokens/s", "lowest", "highest", "time per run", "decode tokens/s"])
    for arm in analysis.arms.values():
        if not arm.done:
            continue
        speeds = [run["timing"]["tokens_per_second"] for run in arm.done.values()]
        decode = mean_timing(arm, "decode_tokens_per_second")
        table.rows.append([arm.name, *(f"{speed:,.0f}" for speed in (math.fsum(speeds) / len(speeds), min(speeds), max(speeds))),
                           clock(mean_timing(arm, "seconds") or 0.0), DASH if decode is None else f"{decode:,.1f}"])
    table.notes += timing_findings(analysis)
    table.notes.append("Means over seeds. Runs that share a machine with others are slower; compare only what ran alike.")
    return table


def _number(value: float, form: str = f".{DECIMALS}f") -> str:
    return DASH if math.isnan(value) else compact(value, form)


def _p_value(value: float) -> str:
    return DASH if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _span(low: float, high: float) -> str:
    return DASH if math.isnan(low) else f"{_number(low, f'+.{DECIMALS}f')} to {_number(high, f'+.{DECIMALS}f')}"


def _ranking_table(analysis: StudyAnalysis) -> Table:
    baseline = analysis.study.baseline
    table = Table("Held-out loss", ["arm", "nats per token", "deviation", "bits per byte", f"less {baseline}", "95% interval",
                                    "detectable", "p-value", "Holm", "seeds"])
    for place, arm in enumerate(analysis.ranked):
        one = arm.comparison
        cells = [DASH] * 5 if one is None else [
            _number(one.difference.value, f"+.{DECIMALS}f"), _span(*one.difference[1:]), _number(one.detectable),
            _p_value(one.p_value), _p_value(one.holm_p_value)]
        if arm.name == baseline:
            table.highlighted.add(place)
        outcome = "diverged" if arm.diverged and not arm.done else "not run" if not arm.done else _number(arm.loss)
        table.rows.append([arm.name, outcome, _number(arm.deviation), _number(arm.bits_per_byte), *cells, _runs_of(arm)])
    table.notes.append(
        f"Lowest first; {baseline} is the baseline. deviation: sample standard deviation over seeds, the seed noise. Differences "
        f"in nats per token are paired by seed and held-out batch. detectable: the true difference that 80% of such studies "
        f"would find. Holm: p-value corrected for the number of arms. seeds: runs that finished, of those of the study.")
    return table


def _step_table(analysis: StudyAnalysis) -> Table:
    table = Table("One change after another", ["arm", "less the arm before", "95% interval", "detectable", "p-value"])
    for name, one in analysis.steps.items():
        table.rows.append([name, _number(one.difference.value, f"+.{DECIMALS}f"), _span(*one.difference[1:]),
                           _number(one.detectable), _p_value(one.p_value)])
    table.notes.append("Nats per token, paired by seed and held-out batch; p-values are not corrected for the number of steps.")
    return table


def _runs_of(arm: ArmAnalysis) -> str:
    total = len(arm.done) + len(arm.diverged) + len(arm.missing)
    return f"{len(arm.done)} of {total}" if len(arm.done) < total else str(total)


def _extrapolation_table(analysis: StudyAnalysis) -> Table:
    table = Table("Loss beyond the trained length", ["arm", "tokens per row", "trained", "within", "beyond", "change",
                                                     "95% interval"])
    unmeasured = []
    for length in sorted(analysis.study.lengths):
        for arm in analysis.arms.values():
            found = [one for one in arm.extrapolations if one.length == length]
            if arm.done and not found:
                reasons = {run.get("by_position_missing", {}).get(str(length), "") for run in arm.done.values()}
                unmeasured.append(f"{arm.name} at {length:,}" + "".join(f" ({reason})" for reason in sorted(reasons) if reason))
            table.rows += [[arm.name, f"{length:,}", f"{one.trained_length:,}", _number(one.within), _number(one.beyond),
                            _number(one.change.value, f"+.{DECIMALS}f"), _span(*one.change[1:])] for one in found]
    table.notes.append("Nats per token, means over seeds; within: the second half of the trained length, beyond: all positions "
                       "after it, in the same rows. Intervals are Student's over seeds.")
    if unmeasured:
        table.notes.append(f"Not measured: {', '.join(unmeasured)}.")
    return table


def _stability_table(analysis: StudyAnalysis) -> Table:
    table = Table("Stability", ["arm", "diverged", "largest gradient norm", "loss spikes"])
    for arm in analysis.arms.values():
        if arm.done or arm.diverged:
            norm = largest_grad_norm(arm)
            table.rows.append([arm.name, f"{len(arm.diverged)} of {len(every_run(arm))}",
                               "not finite" if not math.isfinite(norm) else compact(norm, ".3g"), f"{count_spikes(arm):,}"])
    table.notes.append("The largest of all steps and seeds, before clipping; spikes of the training loss over all seeds "
                       "(docs/ABLATIONS.md says what counts as one).")
    return table


def _cost_table(analysis: StudyAnalysis) -> Table:
    table = Table("Costs", ["arm", "parameters", "FLOPs per token", "peak memory, MiB", "cache bytes per token", "starts from"])
    starts = {arm.name: arm.starts_from for arm in analysis.study.arms}
    for arm in analysis.arms.values():
        for run in every_run(arm)[:1]:
            table.rows.append([arm.name, f"{run['parameters']:,}", f"{run['flops_per_token']:.3g}",
                               f"{run['peak_bytes'] / 2**20:,.1f}", f"{run['cache_bytes_per_token']:,}",
                               starts[arm.name] or DASH])
    table.notes.append("Peak memory: arguments and temporaries of the compiled train step. FLOPs: of training, forward and "
                       "backward. Cache: keys and values of one token in all layers.")
    return table


def _run_table(analysis: StudyAnalysis) -> Table:
    table = Table("Runs", ["arm", "seed", "status", "steps", "nats per token", "training batches", "held-out batches"])
    for arm in analysis.arms.values():
        for run in sorted(every_run(arm), key=lambda run: run["seed"]):
            loss = arm.losses.get(run["seed"], math.nan)
            table.rows.append([arm.name, str(run["seed"]), run["status"], f"{run['steps']:,}", _number(loss),
                               (run.get("stream_sha256") or DASH)[:12], (run.get("heldout_sha256") or DASH)[:12]])
        table.rows += [[arm.name, str(seed), "missing", *[DASH] * 4] for seed in arm.missing]
    table.notes.append("Batches as the first digits of their SHA-256: runs with equal ones saw equal tokens in equal order.")
    return table
