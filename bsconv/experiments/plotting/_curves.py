"""Curves, of single runs or as the mean and range of several."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ._figures import subplots
from ._parts import finish_panel, legend_below, plain_ticks
from ._style import looks_of

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
    figure, axis = subplots()
    for index, (label, values) in enumerate(series.items()):
        runs = np.atleast_2d(np.asarray(values, dtype=float))
        if runs.ndim != 2 or runs.shape[1] != len(x):
            raise ValueError(
                f"series[{label!r}] needs shape ({len(x)},) or (runs, {len(x)}), "
                f"got {np.shape(values)}"
            )
        marked = _marked(len(x), _MOST_MARKERS, index, len(series))
        _mean_and_range(axis, x, runs, label=label, markevery=marked)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
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
    figure, axis = subplots()
    axis.semilogy(list(damages), list(damages.values()))
    axis.set(xlabel=f"share of the {cost}", ylabel="predicted damage", title=title)
    axis.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    axis.grid()
    return figure


def curve_panels(
    panels: Mapping[str, Mapping[str, ArrayLike]],
    *,
    xlabel: str,
    ylabels: Sequence[str],
    title: str = "",
    first: int = 1,
) -> Figure:
    """Panels side by side, each ``{label: values}``: (points,) or (runs, points) at 1, 2, 3, ...

    ``first`` is where the first point stands, such as 0 for what was before the first epoch.
    Several runs are drawn as their mean and range. A label looks the same in all panels; a panel
    without any curve says so.
    """
    if len(ylabels) != len(panels) or not panels:
        raise ValueError(f"{len(panels)} panels need as many ylabels, got {len(ylabels)}")
    figure, axes = subplots(1, len(panels), squeeze=False)
    looks = looks_of(label for series in panels.values() for label in series)
    for axis, (name, series), ylabel in zip(axes[0], panels.items(), ylabels, strict=True):
        for index, (label, values) in enumerate(series.items()):
            runs = np.atleast_2d(np.asarray(values, dtype=float))
            if runs.ndim != 2:
                raise ValueError(
                    f"panels[{name!r}][{label!r}] needs shape (points,) or (runs, points), "
                    f"got {np.shape(values)}"
                )
            x = first + np.arange(runs.shape[1])
            marked = _marked(len(x), _MOST_MARKERS // len(panels), index, len(series))
            _mean_and_range(axis, x, runs, label=label, markevery=marked, **looks[label])
        axis.set(title=name, xlabel=xlabel, ylabel=ylabel)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        finish_panel(axis)
    legend_below(figure, axes[0])
    figure.suptitle(title)
    return figure


def _mean_and_range(axis: Axes, x: ArrayLike, runs: NDArray[np.float64], **look: Any) -> None:
    (line,) = axis.plot(x, runs.mean(axis=0), **look)
    if len(runs) > 1:
        low, high = runs.min(axis=0), runs.max(axis=0)
        axis.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)


def _marked(points: int, most: int, index: int, curves: int) -> tuple[int, int]:
    """First marked point and step: few enough markers, at other places than on other curves."""
    every = -(-points // max(1, most))
    return index * every // curves, every
