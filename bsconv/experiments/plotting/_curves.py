"""Curves, of single runs or as the mean and range of several."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ._figures import looks_of, one_panel, panels_of
from ._parts import finish_panel, legend_below, plain_ticks

_MOST_MARKERS = 25  # across a figure: more of them hide the dashes of their curve


def curves(
    x: Sequence[float],
    series: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    log: str = "",
) -> Figure:
    """One curve for each series: values (points), or (runs, points) drawn as mean and range.

    ``log`` names the logarithmic axes: "x", "y" or "xy".
    """
    figure, axis = one_panel(xlabel=xlabel, ylabel=ylabel, title=title)
    _draw(axis, x, series, _MOST_MARKERS)
    if "x" in log:
        axis.set_xscale("log")
        plain_ticks(axis.xaxis)
    if "y" in log:
        axis.set_yscale("log")
        plain_ticks(axis.yaxis)
    axis.grid()
    axis.legend()
    return figure


def damage_curve(damages: Mapping[float, float], cost: str, title: str = "") -> Figure:
    """Predicted damage, on a logarithmic axis, by the share of the ``cost`` that is left."""
    figure, axis = one_panel(xlabel=f"share of the {cost}", ylabel="predicted damage", title=title)
    axis.semilogy(list(damages), list(damages.values()))
    axis.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    axis.grid()
    return figure


def curve_panels(
    panels: Mapping[str, Mapping[str, ArrayLike]],
    *,
    xlabel: str,
    ylabels: Iterable[str],
    title: str = "",
    first: int = 1,
) -> Figure:
    """Panels side by side, each ``{label: values}``: (points,) or (runs, points) at 1, 2, 3, ...

    ``first`` is where the first point stands, such as 0 for what was before the first epoch.
    Several runs are drawn as their mean and range. A label looks the same in all panels; a panel
    without any curve says so.
    """
    figure, axes = panels_of(panels, title, fontsize=9)
    looks = looks_of(label for series in panels.values() for label in series)
    for (name, axis), ylabel in zip(axes.items(), ylabels, strict=True):
        _draw(axis, first, panels[name], _MOST_MARKERS // len(panels), looks)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        finish_panel(axis)
    legend_below(figure)
    return figure


def _draw(
    axis: Axes,
    x: Sequence[float] | int,
    series: Mapping[str, ArrayLike],
    most_markers: int,
    looks: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Each series as a curve over ``x``, or over the whole numbers from ``x`` on."""
    for index, (label, values) in enumerate(series.items()):
        runs = np.atleast_2d(np.asarray(values, dtype=float))
        points = runs.shape[1]
        every = -(-points // max(1, most_markers))
        start = index * every // len(series)  # markers at other places than on other curves
        (line,) = axis.plot(
            x + np.arange(points) if isinstance(x, int) else x,
            runs.mean(axis=0),
            label=label,
            markevery=(start, every),
            **(looks[label] if looks else {}),
        )
        if len(runs) > 1:
            low, high = runs.min(axis=0), runs.max(axis=0)
            colour = line.get_color()
            axis.fill_between(line.get_xdata(), low, high, color=colour, alpha=0.2, linewidth=0)
