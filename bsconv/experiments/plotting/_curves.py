"""Runs as curves or dots, costs against what they buy, speeds against their limits."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import _figures as figures
from ._figures import HEIGHT, WIDTH, Look, Series

Panels = Mapping[str, Series]

_MOST_MARKERS = 25  # across a figure: more of them hide the dashes of their curve


def curves(x: Sequence[float], series: Series, *, log: str = "", **labels: str) -> Figure:
    """One curve for each series: values (points), or (runs, points) drawn as mean and range.

    ``log`` names the logarithmic axes: "x", "y" or "xy"; ``labels`` are xlabel, ylabel and title.
    """
    figure, axis = figures.one_panel(labels)
    draw_curves(axis, x, series, figures.looks_of(series), _MOST_MARKERS)
    figures.logarithmic(axis, log)
    axis.grid()
    axis.legend()
    return figure


def curve_panels(
    panels: Panels, *, xlabel: str, ylabels: Iterable[str], title: str = "", first: int = 1
) -> Figure:
    """Panels side by side, each ``{label: values}``: (points,) or (runs, points) at 1, 2, 3, ...

    ``first`` is where the first point stands. Several runs are drawn as their mean and range; a
    panel without any curve says so.
    """
    figure, axes = figures.panels_of(panels, title)
    looks = figures.looks_of(chain.from_iterable(panels.values()))
    for (name, axis), ylabel in zip(axes.items(), ylabels, strict=True):
        draw_curves(axis, first, panels[name], looks, _MOST_MARKERS // len(panels))
        axis.set(xlabel=xlabel, ylabel=ylabel)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        figures.finish_panel(axis)
    return figures.with_legend(figure)


def draw_curves(
    axis: Axes, x: Sequence[float] | int, series: Series, looks: Mapping[str, Look], most: int
) -> None:
    """Each series over ``x``, or the whole numbers from ``x`` on; ``most`` markers, or fewer."""
    for index, (label, values) in enumerate(series.items()):
        runs = np.atleast_2d(np.asarray(values, dtype=float))
        points = runs.shape[1]
        at = x + np.arange(points) if isinstance(x, int) else x
        every = -(-points // max(1, most))
        start = index * every // len(series)  # markers at other places than on other curves
        axis.plot(at, runs.mean(axis=0), label=label, markevery=(start, every), **looks[label])
        if len(runs) > 1:
            look = {"color": looks[label]["color"], "alpha": 0.2, "linewidth": 0}
            axis.fill_between(at, runs.min(axis=0), runs.max(axis=0), **look)


def damage_curve(found: Any, title: str = "") -> Figure:
    """Predicted damage, on a logarithmic axis, by the share of the cost that is left: of a
    BudgetCurve, or of a ProjectionReport with a budget, whose network is marked."""
    curve = getattr(found, "curve", found)
    if curve is None:
        raise ValueError("damage_curve needs a report of a budget, got one without")
    cost = "MACs" if curve.of == "macs" else curve.of
    labels = {"xlabel": f"share of the {cost}", "ylabel": "predicted damage", "title": title}
    figure, axis = figures.one_panel(labels)
    shares, damages = ([getattr(one, name) for one in curve.points] for name in ("share", "damage"))
    axis.semilogy(shares, damages, label="budgets")
    if found is not curve:
        look = {"color": figures.COLOURS[1], "markersize": 8, "label": "this network"}
        axis.semilogy(found.share, found.damage, "s", **look)
        axis.legend()
    figures.in_percent(axis.xaxis)
    axis.grid()
    return figure


def dots(series: Mapping[str, Mapping[str, Sequence[float]]], **labels: str) -> Figure:
    """``{series: {row: values of the runs}}``: a dot for each run, a bar across at their mean."""
    rows = list(dict.fromkeys(chain.from_iterable(series.values())))
    figure, axis = figures.one_panel(labels, (WIDTH, min(HEIGHT, 0.9 + 0.5 * len(rows))))
    step = 0.5 / len(series)
    for index, (label, look) in enumerate(figures.looks_of(series).items()):
        colour, named = look["color"], label
        for row, runs in series[label].items():
            at = rows.index(row) + (index - (len(series) - 1) / 2) * step
            axis.plot(runs, [at] * len(runs), look["marker"], color=colour, alpha=0.7, label=named)
            axis.plot(np.mean(runs), at, "|", color=colour, markersize=16, markeredgewidth=2)
            named = "_"  # once in the legend
    axis.set_yticks(range(len(rows)), rows)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(left=min(0, axis.get_xlim()[0]))
    axis.grid(axis="x")
    if len(series) > 1:
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1)
    return figure


def roofline(
    points: Mapping[str, tuple[float, float]], *, peak: float, bandwidth: float, title: str = ""
) -> Figure:
    """Layers, each ``(FLOPs per byte, GFLOP/s)``, below the roof ``min(peak, bandwidth * x)``.

    ``peak`` is in GFLOP/s, ``bandwidth`` in GB/s (Williams et al., Roofline, 2009). A dotted line
    leads up to the roof: the speed that is left to gain.
    """
    intensities, rates = zip(*points.values(), strict=True)
    ridge = peak / bandwidth
    low, high = min(*intensities, ridge) / 2, max(*intensities, ridge) * 4
    xlabel = "arithmetic intensity (FLOPs per byte moved)"
    figure, axis = figures.one_panel({"xlabel": xlabel, "ylabel": "GFLOP/s", "title": title})
    roof_line = [low * bandwidth, peak, peak]
    axis.plot([low, ridge, high], roof_line, "-", color="black", marker="", linewidth=2)
    aside: Look = {"textcoords": "offset points"}
    for label, look in figures.looks_of(points).items():
        intensity, rate = points[label]
        roof = min(peak, bandwidth * intensity)
        axis.plot([intensity] * 2, [rate, roof], ":", marker="", color=look["color"])
        axis.plot([intensity], [rate], look["marker"], color=look["color"], markersize=9)
        text = f"{label}\n{rate:,.3g} GFLOP/s"
        axis.annotate(text, (intensity, rate), (8, -6), va="top", **aside)
    lowest, highest = min(low * bandwidth, *rates) / 2, 2 * max(peak, *rates)
    figures.logarithmic(axis, "xy")
    axis.set(xlim=(low, high), ylim=(lowest, highest))
    axis.grid()
    above = aside | {"color": "#555555", "va": "bottom"}
    figure.draw_without_rendering()  # the slope on paper is known once the layout is
    start, end = axis.transData.transform([(low, low * bandwidth), (ridge, peak)])
    slope = float(np.degrees(np.arctan2(end[1] - start[1], end[0] - start[0])))
    middle = np.sqrt(low * ridge)
    along = above | {"rotation": slope, "rotation_mode": "anchor", "ha": "center"}
    at = middle, bandwidth * middle
    axis.annotate(f"memory: {bandwidth:,.3g} GB/s", at, (-3, 3), **along)
    axis.annotate(f"arithmetic: {peak:,.3g} GFLOP/s", (ridge, peak), xytext=(6, 3), **above)
    return figure
