"""A plot of horizontal bars with error bars and reference marks, as PNG."""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

_BAR_COLOR, _ERROR_COLOR = "#4878a8", "#333333"


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


def bar_plot(bars: Sequence[Bar], name: str, *, marks: Sequence[Marks] = ()) -> bytes:
    """PNG file of bars on an axis from 0 to 100 percent, the first at the top; the legend calls them `name`."""
    figure = Figure(figsize=(7, 0.9 + 0.26 * len(bars)), dpi=130)
    axes = figure.subplots()
    places = range(len(bars))
    axes.barh(places, [bar.value for bar in bars], xerr=[bar.error for bar in bars],
              height=0.62, color=_BAR_COLOR, ecolor=_ERROR_COLOR, capsize=2, label=name)
    for mark in marks:
        if mark.values:
            axes.plot(list(mark.values.values()), list(mark.values), "|", markersize=11, markeredgewidth=2, color=mark.color,
                      label=mark.label)
    axes.set_yticks(places, [bar.label for bar in bars])
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="percent")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=8, loc="upper center", ncols=3)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / figure.get_figheight()))
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()
