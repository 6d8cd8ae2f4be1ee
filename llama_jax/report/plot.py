"""Plots as PNG files: bars with marks, differences with intervals, and points (`llama_jax.report.curves` has the curves).

The same arguments give the same bytes: no date and no setting of the user's matplotlib is in them.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import matplotlib.style
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_BAR_COLOR, _ERROR_COLOR = "#4878a8", "#333333"
_LOWER_COLOR, _HIGHER_COLOR, _OPEN_COLOR = "#0072b2", "#d55e00", "#777777"
_SERIES_COLORS = ("#0072b2", "#d55e00", "#009e73", "#b05a8c")
_CLIPPED = 8.0
"""What reaches further from 0 than this many times the median does not widen the axis; an arrow points to it."""


class Bar(NamedTuple):
    """One bar in percent, with the half width of its error bar."""

    label: str
    value: float
    error: float = 0.0


class Marks(NamedTuple):
    """Reference values that are drawn as ticks across some of the bars."""

    label: str
    color: str
    values: Mapping[int, float]
    """Percent, by the index of the bar."""


class IntervalRow(NamedTuple):
    """One row of an interval plot."""

    label: str
    value: float | None
    """None: nothing is drawn but the text."""
    low: float
    high: float
    text: str
    """Stands at the right."""
    open: bool = False
    """Whether it is drawn like an interval across 0, wherever it is."""


class Point(NamedTuple):
    """A named point with an interval of its y."""

    label: str
    x: float
    y: float
    low: float
    high: float


class BarPanel(NamedTuple):
    """One of the plots of a grouped bar plot."""

    xlabel: str
    values: Mapping[str, Sequence[float]]
    """A value per group, by the name of the series."""


def bar_plot(bars: Sequence[Bar], name: str, *, marks: Sequence[Marks] = ()) -> bytes:
    """PNG file of bars on an axis from 0 to 100 percent, the first at the top; the legend calls them `name`."""
    with plot_style():
        figure = Figure(figsize=(7, 0.9 + 0.26 * len(bars)), dpi=130)
        axes = figure.subplots()
        places = range(len(bars))
        axes.barh(places, [bar.value for bar in bars], xerr=[bar.error for bar in bars],
                  height=0.62, color=_BAR_COLOR, ecolor=_ERROR_COLOR, capsize=2, label=name)
        for mark in marks:
            if mark.values:
                axes.plot(list(mark.values.values()), list(mark.values), "|", markersize=11, markeredgewidth=2,
                          color=mark.color, label=mark.label)
        axes.set_yticks(places, [bar.label for bar in bars])
        axes.invert_yaxis()
        axes.set(xlim=(0, 100), xlabel="percent")
        figure.legend(frameon=False, fontsize=8, loc="upper center", ncols=3)
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / figure.get_figheight()))
        return png_of(figure)


def grouped_bar_plot(groups: Sequence[str], panels: Sequence[BarPanel]) -> bytes:
    """PNG file of panels side by side that share their groups of bars, the first group at the top, with one legend above them.

    Every panel has the same series, whose bars stand below each other in a group.
    """
    names = list(panels[0].values)
    height = 0.8 / len(names)
    with plot_style():
        figure = Figure(figsize=(4.4 * len(panels) + 1, 1.2 + 0.24 * (len(names) + 0.6) * len(groups)), dpi=130)
        axes_of_panels = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, panel in zip(axes_of_panels, panels, strict=True):
            for number, name in enumerate(names):
                places = [place + (number - (len(names) - 1) / 2) * height for place in range(len(groups))]
                bars = axes.barh(places, panel.values[name], height=0.92 * height, color=_SERIES_COLORS[number], label=name)
                axes.bar_label(bars, fmt="{:.3g}", padding=3, fontsize=8)
            axes.set_xlim(0, 1.15 * max([0.0, *(value for values in panel.values.values() for value in values)]) or 1.0)
            axes.set(xlabel=panel.xlabel)
            axes.grid(axis="x", alpha=0.25)
            axes.set_axisbelow(True)
        axes_of_panels[0].set_yticks(range(len(groups)), groups)
        axes_of_panels[0].invert_yaxis()
        handles, labels = axes_of_panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, fontsize=8.5, loc="upper center", ncols=len(names))
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / figure.get_figheight()), w_pad=2)
        return png_of(figure)


def interval_plot(rows: Sequence[IntervalRow], *, xlabel: str) -> bytes:
    """PNG file of intervals around a vertical line at 0, the first at the top.

    Intervals below 0, above 0 and across it have colours and markers of their own. An interval far beyond the others ends in an
    arrow at the edge, because the others would be too small to read.
    """
    ends = common_range([(row.low, row.high) for row in rows if row.value is not None])
    with plot_style():
        figure = Figure(figsize=(8, 1.0 + 0.32 * len(rows)), dpi=130)
        axes = figure.subplots()
        axes.axvline(0, color=_ERROR_COLOR, linewidth=1)
        for place, row in enumerate(rows):
            _draw_interval(axes, row, place=place, ends=ends)
            axes.annotate(row.text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.set(xlim=ends, ylim=(len(rows) - 0.4, -0.6), xlabel=xlabel)
        axes.grid(axis="x", alpha=0.25)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return png_of(figure)


def common_range(spans: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The range of an axis that holds 0 and all (low, high), but those that reach far beyond the median of their distances."""
    distances = sorted(max(abs(low), abs(high)) for low, high in spans)
    near = [span for span in spans if max(map(abs, span)) <= _CLIPPED * distances[len(distances) // 2]]
    low, high = min([0.0, *(low for low, _ in near)]), max([0.0, *(high for _, high in near)])
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _draw_interval(axes: Axes, row: IntervalRow, *, place: int, ends: tuple[float, float]) -> None:
    if row.value is None:
        return
    sign = 0 if row.open else int(row.low > 0) - int(row.high < 0)
    color = {-1: _LOWER_COLOR, 0: _OPEN_COLOR, 1: _HIGHER_COLOR}[sign]
    left, right = ends
    if row.high < left or row.low > right:  # nothing of it is inside
        edge, arrow = (left, "<") if row.high < left else (right, ">")
        axes.plot([edge], [place], arrow, color=color, markersize=9, clip_on=False)
        return
    axes.plot([max(row.low, left), min(row.high, right)], [place, place], color=color, linewidth=2, solid_capstyle="butt")
    for outside, edge, arrow in ((row.low < left, left, "<"), (row.high > right, right, ">")):
        if outside:
            axes.plot([edge], [place], arrow, color=color, markersize=7, clip_on=False)
    if left <= row.value <= right:
        marker = {-1: "o", 0: "D", 1: "s"}[sign]
        axes.plot([row.value], [place], marker, color=color, markersize=6, markerfacecolor=color if sign else "white")


def point_plot(points: Sequence[Point], *, xlabel: str, ylabel: str) -> bytes:
    """PNG file of points with intervals and their names beside them, over a logarithmic x axis with the points' own ticks."""
    with plot_style():
        figure = Figure(figsize=(7, 3.9), dpi=130)
        axes = figure.subplots()
        axes.axhline(0, color=_ERROR_COLOR, linewidth=1)
        for place, point in enumerate(points):
            left = sum(other.x == point.x for other in points[:place]) % 2  # names of points above each other take turns
            axes.plot([point.x, point.x], [point.low, point.high], color=_LOWER_COLOR, linewidth=1.5)
            axes.plot([point.x], [point.y], "o", color=_LOWER_COLOR, markersize=6)
            axes.annotate(point.label, (point.x, point.y), xytext=(-7 if left else 7, 3), textcoords="offset points",
                          fontsize=8.5, ha="right" if left else "left")
        ticks = sorted({point.x for point in points})
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(ticks, [f"{x:,.0f}" for x in ticks])
        axes.margins(x=0.12)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid(alpha=0.25)
        return png_of(figure)


@contextmanager
def plot_style() -> Iterator[None]:
    """Matplotlib's defaults with text as it is (a dollar sign begins no formula) and without the frame's upper right half."""
    with matplotlib.style.context("default"), rc_context(
            {"text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10.5}):
        yield


def png_of(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", bbox_inches="tight", metadata={"Software": None})
    return data.getvalue()
