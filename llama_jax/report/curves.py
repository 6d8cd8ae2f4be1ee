"""Curves with bands in panels side by side, as a PNG file.

Colours are told apart with every common kind of colour blindness: Okabe and Ito's palette, darkened where it would be pale on
white. Line styles tell apart more curves than there are colours.
"""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from llama_jax.report.plot import plot_style, png_of

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#b05a8c", "#46a3d8", "#c98a00")
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.5, 1.2)))
_BASELINE_COLOR = "#000000"


class Curve(NamedTuple):
    """One line with a band around it."""

    label: str
    style: int
    """Index of its colour and line style; -1: that of the baseline."""
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    ended: bool = False
    """Whether it ends in a cross, as that of a run that diverged."""


class Panel(NamedTuple):
    """One of the plots that stand side by side."""

    title: str
    xlabel: str
    ylabel: str
    curves: Sequence[Curve]
    top: float | None = None
    """Upper end of the y axis; None: all of the curves."""
    bottom: float | None = None
    """Lower end of the y axis; None: all of the curves."""
    marked_x: float | None = None
    """Where a dotted vertical line stands."""
    marked_label: str = ""


def curve_plot(panels: Sequence[Panel]) -> bytes:
    """PNG file of panels side by side with one legend below them, in the order in which the labels first appear.

    A cross that lies above a panel's top is drawn at its upper edge.
    """
    names = list(dict.fromkeys(curve.label for panel in panels for curve in panel.curves))
    columns = max(1, min(len(names), int(45 * len(panels) / (8 + max(map(len, names), default=0)))))
    legend = 0.1 + 0.2 * -(-len(names) // columns)
    with plot_style():
        figure = Figure(figsize=(max(7.0, 4.6 * len(panels)), 3.7 + legend), dpi=130)
        handles = {}
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for curve in panel.curves:
                handles.setdefault(curve.label, _draw_curve(axes, curve, top=panel.top))
            axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel, title=panel.title)
            axes.set_ylim(bottom=panel.bottom, top=panel.top)
            if panel.marked_x is not None:
                axes.axvline(panel.marked_x, color="#555555", linewidth=1, linestyle=":")
                axes.annotate(panel.marked_label, (panel.marked_x, 0.98), xycoords=("data", "axes fraction"), fontsize=8,
                              xytext=(4, 0), textcoords="offset points", va="top", color="#555555")
            axes.grid(alpha=0.25)
        figure.tight_layout(rect=(0, legend / figure.get_figheight(), 1, 1), w_pad=2)
        figure.legend(handles.values(), handles, frameon=False, fontsize=8.5, loc="lower center", ncols=columns, handlelength=3)
        return png_of(figure)


def _draw_curve(axes: Axes, curve: Curve, *, top: float | None) -> Line2D:
    """Draw a line, its band and its cross; returns the line, for the legend."""
    base = curve.style < 0
    color = _BASELINE_COLOR if base else _COLORS[curve.style % len(_COLORS)]
    dashes = "-" if base else _DASHES[curve.style // len(_COLORS) % len(_DASHES)]
    order = 3 if base else 2
    line, = axes.plot(curve.x, curve.y, color=color, linestyle=dashes, linewidth=1.8 if base else 1.3, zorder=order)
    axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.16, linewidth=0)
    if curve.ended:
        y = curve.y[-1] if top is None else min(curve.y[-1], top)
        axes.plot(curve.x[-1:], [y], "x", color=color, markersize=8, markeredgewidth=2, clip_on=False, zorder=4)
    return line
