"""The plots of a study's report: curves with seed bands, differences with intervals, loss by position."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from llama_jax.ablation.analysis import ArmAnalysis, Measurement, StudyAnalysis
from llama_jax.ablation.findings import every_run
from llama_jax.report.curves import Curve, Panel, curve_plot
from llama_jax.report.page import Plot
from llama_jax.report.plot import IntervalRow, Point, common_range, interval_plot, point_plot
from llama_jax.training.loss_plot import unit_of_tokens

_BAND = "Lines are means over seeds, bands reach from the lowest to the highest seed"


def study_plots(analysis: StudyAnalysis) -> list[Plot]:
    """The plots for which there are measurements."""
    plots = [_difference_plot(analysis), _training_plot(analysis), _position_plot(analysis), _cache_plot(analysis)]
    return [plot for plot in plots if plot is not None]


def _difference_plot(analysis: StudyAnalysis) -> Plot | None:
    if not any(arm.comparison for arm in analysis.arms.values()):
        return None
    baseline = analysis.study.baseline
    rows = [_difference_row(arm, baseline) for arm in sorted(analysis.ranked, key=lambda arm: _place(arm, baseline))]
    caption = (f"Held-out loss less that of {baseline}, with 95% confidence intervals, the best arm first. Filled blue circle: "
               f"lower; filled orange square: higher; open grey diamond: not told apart, or one seed; arrow: off the scale.")
    xlabel = f"difference in held-out loss to {baseline} (nats per token; left is better)"
    return Plot("report-differences", interval_plot(rows, xlabel=xlabel), caption)


def _cache_plot(analysis: StudyAnalysis) -> Plot | None:
    """Differences over the size of the key-value cache; None where that is the same in all arms."""
    baseline, points = analysis.baseline, []
    for arm in _drawn(analysis):
        if arm.comparison or (arm.name == baseline.name and arm.done):
            value, low, high = arm.comparison.difference if arm.comparison else (0.0, 0.0, 0.0)
            cache = next(iter(arm.done.values()))["cache_bytes_per_token"]
            points.append(Point(arm.name, cache, value, *(value if math.isnan(end) else end for end in (low, high))))
    if len({point.x for point in points}) < 2:
        return None
    png = point_plot(points, xlabel="key-value cache (bytes per token)",
                     ylabel=f"held-out loss less {baseline.name}\n(nats per token)")
    return Plot("report-cache", png, "Held-out loss over the size of the cache, with 95% confidence intervals of differences.")


def _difference_row(arm: ArmAnalysis, baseline: str) -> IntervalRow:
    diverged = f"{len(arm.diverged)} of {len(arm.diverged) + len(arm.done)} diverged" if arm.diverged else ""
    if arm.comparison is None:
        outcome = "baseline" if arm.name == baseline else "" if not arm.done else "not comparable"
        text = ", ".join(filter(None, [outcome, diverged])) or "not run"
        return IntervalRow(arm.name, None, 0.0, 0.0, text)
    value, low, high = arm.comparison.difference
    single = len(arm.comparison.seeds) == 1
    seeds = "one seed" if single else ""
    if not arm.comparison.difference.bounded:
        low = high = value
    span = f" [{low:+.4f}, {high:+.4f}]" if arm.comparison.difference.bounded else ""
    return IntervalRow(arm.name, value, low, high, ", ".join(filter(None, [f"{value:+.4f}{span}", seeds, diverged])), open=single)


def _place(arm: ArmAnalysis, baseline: str) -> tuple[bool, float]:
    """Sorts by difference to the baseline, whose own is 0, and last what has none."""
    return (False, arm.comparison.difference.value) if arm.comparison else (arm.name != baseline, 0.0)


def _training_plot(analysis: StudyAnalysis) -> Plot | None:
    """Training and held-out loss, and the held-out loss less the baseline's, against training tokens."""
    tokens = [max(_points(analysis, run, name="curve"), default=0.0) for arm in analysis.arms.values() for run in every_run(arm)]
    scale, unit = unit_of_tokens(max(tokens, default=0.0))
    xlabel, ylabel = f"training tokens ({unit})" if unit else "training tokens", "loss (nats per token)"
    panels = []
    for title, name in (("Training loss", "curve"), ("Held-out loss", "heldout_curve")):
        curves = [curve for arm in _drawn(analysis) for curve in _loss_curves(analysis, arm, name=name, scale=scale)]
        if curves:
            panels.append(Panel(title, xlabel, ylabel, curves, top=_top(curves)))
    curves = [curve for arm in _drawn(analysis) if (curve := _curve_of_differences(analysis, arm, scale=scale))]
    if len(curves) > 1:
        half = [(curve.low[len(curve.x) // 2:], curve.high[len(curve.x) // 2:]) for curve in curves if curve.style >= 0]
        bottom, top = common_range([(min(low), max(high)) for low, high in half])
        title = f"Held-out loss less {analysis.study.baseline}"
        panels.append(Panel(title, xlabel, "difference (nats per token)", curves, top, bottom))
    caption = f"{_BAND}; differences are paired by seed; a cross ends a run that diverged; what is off the scale is not drawn."
    return Plot("report-curves", curve_plot(panels), caption) if panels else None


def _points(analysis: StudyAnalysis, run: Measurement, *, name: str) -> dict[float, float]:
    """Finite losses of a run by training tokens."""
    config = next(arm.config for arm in analysis.study.arms if arm.name == run["arm"])
    tokens_per_step = config.training.batch_size * config.data.sequence_length
    return {float(step * tokens_per_step): loss for step, loss in run.get(name) or () if loss is not None and math.isfinite(loss)}


def _drawn(analysis: StudyAnalysis) -> list[ArmAnalysis]:
    """The baseline, then the other arms in the study's order."""
    return sorted(analysis.arms.values(), key=lambda arm: arm.name != analysis.study.baseline)


def _style(analysis: StudyAnalysis, arm: ArmAnalysis) -> int:
    """An arm's colour and line style, the same in every plot; -1 for the baseline."""
    return _drawn(analysis).index(arm) - 1


def _loss_curves(analysis: StudyAnalysis, arm: ArmAnalysis, *, name: str, scale: float) -> list[Curve]:
    """One curve over the finished seeds of an arm, and one per seed that diverged."""
    style = _style(analysis, arm)
    done = _band(arm.name, style, curves=[_points(analysis, run, name=name) for run in arm.done.values()], scale=scale)
    diverged = [_band(arm.name, style, curves=[_points(analysis, run, name=name)], scale=scale) for run in arm.diverged.values()]
    return [curve for curve in (done, *(one and one._replace(ended=True) for one in diverged)) if curve]


def _curve_of_differences(analysis: StudyAnalysis, arm: ArmAnalysis, *, scale: float) -> Curve | None:
    """Held-out loss of an arm less the baseline's of the same seed after as many tokens."""
    curves = []
    for seed, run in arm.done.items():
        if seed in analysis.baseline.done:
            base = _points(analysis, analysis.baseline.done[seed], name="heldout_curve")
            own = _points(analysis, run, name="heldout_curve")
            curves.append({tokens: own[tokens] - base[tokens] for tokens in own if tokens in base})
    return _band(arm.name, _style(analysis, arm), curves=curves, scale=scale)


def _band(label: str, style: int, *, curves: Sequence[Mapping[float, float]], scale: float) -> Curve | None:
    """Mean, lowest and highest of several curves at the x that all of them have; None where they share none."""
    shared = sorted(set.intersection(*map(set, curves))) if curves else []
    if not shared:
        return None
    loss_RX = np.asarray([[curve[x] for x in shared] for curve in curves])
    mean, low, high = (loss_RX.mean(0).tolist(), loss_RX.min(0).tolist(), loss_RX.max(0).tolist())
    return Curve(label, style, [x / scale for x in shared], mean, low, high)


def _top(curves: Sequence[Curve]) -> float:
    """Upper end of the y axis: what most curves have after a tenth of their points, and the end of every curve, fit below it."""
    lowest = min(min(curve.low) for curve in curves)
    early = float(np.median([curve.y[len(curve.y) // 10] for curve in curves]))
    highest = max([early, *(curve.high[-1] for curve in curves if not curve.ended)])
    return highest + 0.08 * (highest - lowest) + 1e-9


def _position_plot(analysis: StudyAnalysis) -> Plot | None:
    trained = {arm.config.data.sequence_length for arm in analysis.study.arms}
    panels = []
    for length in sorted(analysis.study.lengths):
        curves = [curve for arm in _drawn(analysis) if (curve := _position_curve(analysis, arm, length=length))]
        if curves:
            panels.append(Panel(f"Rows of {length:,} tokens", "position in the row (tokens)", "held-out loss (nats per token)",
                                curves, marked_x=min(trained) if len(trained) == 1 else None, marked_label="trained length"))
    return Plot("report-positions", curve_plot(panels), f"Loss by position. {_BAND}.") if panels else None


def _position_curve(analysis: StudyAnalysis, arm: ArmAnalysis, *, length: int) -> Curve | None:
    """Mean loss in every bucket of positions, drawn in its middle."""
    curves = []
    for run in arm.done.values():
        if buckets := run["by_position"].get(str(length)):
            ends = [*(first for first, _, _ in buckets[1:]), length]
            curves.append({(first + end) / 2: loss / tokens for (first, loss, tokens), end in zip(buckets, ends, strict=True)})
    return _band(arm.name, _style(analysis, arm), curves=curves, scale=1)
