"""Runs as curves, as dots, or against the size of the network: each, or their mean and range."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ._figures import (
    COLOURS,
    HEIGHT,
    MARKERS,
    WIDTH,
    finish_panel,
    legend_below,
    looks_of,
    new_figure,
    one_panel,
    panels_of,
    plain_ticks,
    size_axis,
)

Network = tuple[str, float, Sequence[float]]
"""A name to stand at the point, million parameters, and the accuracies of its runs in percent."""

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


def trade_offs(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    *,
    ylabel: str,
    level: float,
    title: str = "",
) -> Figure:
    """Panels side by side, each ``{label: (share of a cost, value)}``, named after its cost.

    A line at ``level`` is what the whole cost buys. A label looks the same in all panels.
    """
    figure, axes = panels_of(panels, title, fontsize=9, sharey=True)
    looks = looks_of(label for series in panels.values() for label in series)
    for name, axis in axes.items():
        axis.axhline(level, color=COLOURS[-1], linewidth=1, linestyle=":", marker="", label="dense")
        for label, points in panels[name].items():
            axis.plot(*zip(*points, strict=True), **looks[label], label=label)
        axis.set_title("")
        axis.set(xlabel=name)
        axis.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
        axis.set_xlim(left=0)
        axis.grid()
    next(iter(axes.values())).set(ylabel=ylabel)
    legend_below(figure, columns=4)
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


def dots(
    series: Mapping[str, Mapping[str, Sequence[float]]], *, xlabel: str, title: str = ""
) -> Figure:
    """``{series: {row: values of the runs}}``: a dot for each run, a bar across at their mean.

    Rows run from the top; a series may lack some of them.
    """
    rows = list(dict.fromkeys(row for values in series.values() for row in values))
    figure = new_figure((WIDTH, min(HEIGHT, 0.9 + 0.5 * len(rows))))
    axis = figure.subplots()
    step = 0.5 / len(series)
    looks = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
    for index, ((label, values), (colour, marker)) in enumerate(
        zip(series.items(), looks, strict=False)
    ):
        for row, runs in values.items():
            at = rows.index(row) + (index - (len(series) - 1) / 2) * step
            named = label if row == next(iter(values)) else None
            axis.plot(runs, [at] * len(runs), marker, color=colour, alpha=0.7, label=named)
            axis.plot(np.mean(runs), at, "|", color=colour, markersize=16, markeredgewidth=2)
    axis.set(xlabel=xlabel, title=title)
    axis.set_yticks(range(len(rows)), rows)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(left=min(0, axis.get_xlim()[0]))
    axis.grid(axis="x")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1)
    return figure


def accuracy_panels(
    panels: Mapping[str, Mapping[str, Sequence[Network]]], *, title: str = ""
) -> Figure:
    """Panels side by side, each ``{label: networks}``: top-1 accuracy against parameters.

    The networks of a label are joined by a line in the order given; several runs of one are drawn
    as their mean and range. A label looks the same in all panels; a panel without any says so.
    """
    figure, axes = panels_of(panels, title, fontsize=9)
    looks = looks_of(label for series in panels.values() for label in series)
    below: dict[str, Any] = {"xytext": (0, -11), "textcoords": "offset points"}
    for name, axis in axes.items():
        for label, networks in panels[name].items():
            texts, millions, runs = zip(*networks, strict=True)
            means = np.array([np.mean(values) for values in runs])
            spread = [means - list(map(min, runs)), list(map(max, runs)) - means]
            bars = spread if np.any(spread) else None
            axis.errorbar(millions, means, bars, capsize=3, label=label, **looks[label])
            for text, x, y in zip(texts, millions, means, strict=True):
                colour = looks[label]["color"]
                axis.annotate(text, (x, y), color=colour, fontsize=7, ha="center", **below)
        size_axis(axis, margins=0.12)
        finish_panel(axis)
    next(iter(axes.values())).set_ylabel("top-1 accuracy (%)")
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
