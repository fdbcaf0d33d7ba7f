"""Amounts as bars: side by side, as shares of a whole, or with the spread of what was measured."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import ticker
from matplotlib.figure import Figure

from . import _figures as figures
from ._figures import COLOURS, Look, Series

Timings = Mapping[str, Mapping[str, tuple[float, float, float]]]

_HATCHES = ("", "////", "....", "xxxx", "----", "\\\\\\\\", "++++")
_LOOKS = cycler(color=COLOURS, hatch=_HATCHES) * cycler(edgecolor=["white"])
_NARROWEST = 0.08  # a thinner segment has no room for its number
_MOST = 24  # more from top to bottom have no room for their numbers, or for all their names


def stacked_shares(
    panels: Mapping[str, Mapping[str, Mapping[str, float]]], *, title: str = ""
) -> Figure:
    """Panels side by side, each ``{bar: {part: amount}}``: what share of each bar is which part.

    All panels name the same bars; a part that a bar lacks counts as 0. Bars run from the top.
    """
    bars = list(next(iter(panels.values())))
    parts = [part for panel in panels.values() for bar in panel.values() for part in bar]
    white = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
    figure, axes = figures.panels_of(panels, title, large=True, sharey=True)
    for name, axis in axes.items():
        totals = np.array([sum(panels[name][bar].values()) for bar in bars])
        left = np.zeros(len(bars))
        for part, look in figures.looks_of(parts, _LOOKS).items():
            share = np.array([panels[name][bar].get(part, 0.0) for bar in bars]) / totals
            drawn = axis.barh(bars, share, left=left, label=part, **look)
            numbers = [f"{s:.0%}" if s >= _NARROWEST else "" for s in share]
            axis.bar_label(drawn, numbers, label_type="center", fontsize=8, bbox=white)
            left += share
        axis.set(xlabel="share", xlim=(0, 1), xticks=(0, 0.5, 1))
        figures.in_percent(axis.xaxis)
    axis.invert_yaxis()  # of all panels
    return figures.with_legend(figure)


def grouped_bars(
    names: Sequence[str], series: Series, *, log: bool = False, number: str = "", **labels: str
) -> Figure:
    """For each name one bar of each series, side by side; ``labels`` are xlabel, ylabel and title.

    ``number`` is the format in which a bar carries its value, such as "{:.0f} %"; empty for none.
    """
    figure, axis = figures.one_panel(labels)
    for places, width, values, look in _side_by_side(len(names), series):
        drawn = axis.bar(places, values, width, **look)
        if number:
            axis.bar_label(drawn, fmt=number, fontsize=8, padding=1)
    if log:
        figures.logarithmic(axis, "y")
        lowest = min(map(np.min, series.values()))
        axis.set_ylim(bottom=10 ** np.floor(np.log10(lowest)))
    turn: Look = {"rotation": 45, "ha": "right"} if sum(map(len, names)) > 90 else {}
    axis.set_xticks(range(len(names)), names, **turn)
    figures.grid_below(axis, "y")
    if len(series) > 1:
        axis.legend()
    return figure


def bar_rows(names: Sequence[str], series: Series, **labels: str) -> Figure:
    """For each name, from the top, one bar of each series, with its value where there is room."""
    figure, axis = figures.one_panel(labels)
    for places, height, values, look in _side_by_side(len(names), series):
        drawn = axis.barh(places, values, height, **look)
        if len(names) * len(series) <= _MOST:
            axis.bar_label(drawn, fmt="{:,.0f}", fontsize=7, padding=2)
    every = -(-len(names) // _MOST)
    size = 8 if len(names) <= 12 else 6
    axis.set_yticks(range(0, len(names), every), names[::every], fontsize=size)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.margins(x=0.12)
    axis.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    figures.grid_below(axis, "x")
    return figures.with_legend(figure)


def timing_bars(panels: Mapping[str, Timings], *, ylabel: str, title: str = "") -> Figure:
    """Panels side by side, each ``{series: {name: (middle, low, high)}}``, each on its own scale.

    For each name one bar of each series that has it, as high as its middle; a line on it spans from
    low to high. A series looks the same in all panels, a name stands at the same place.
    """
    labels = dict.fromkeys(label for panel in panels.values() for label in panel)
    every = [name for panel in panels.values() for bars in panel.values() for name in bars]
    names = list(dict.fromkeys(every))
    figure, axes = figures.panels_of(panels, title, ylabel=ylabel)
    for heading, axis in axes.items():
        series = {label: panels[heading].get(label) for label in labels}
        for places, width, bars, look in _side_by_side(len(names), series):
            if bars:
                middle, low, high = np.array(list(bars.values()), dtype=float).T
                at = [places[names.index(name)] for name in bars]
                spread = np.array([middle - low, high - middle]).tolist()
                line = {"capsize": 3, "linewidth": 1}
                drawn = axis.bar(at, middle, width, yerr=spread, error_kw=line, **look)
                axis.bar_label(drawn, fmt="{:.3g}", fontsize=7, padding=2)
        shown = [name.replace(", ", "\n") for name in names]
        axis.set_xticks(range(len(names)), shown, fontsize=8 if len(panels) < 3 else 6)
        axis.margins(y=0.12)
        figures.grid_below(axis, "y")
    return figures.with_legend(figure)


def _side_by_side(names: int, series: Mapping[str, Any]) -> Iterator[tuple[Any, float, Any, Look]]:
    """For each series the places of its bars, their width, what it holds, and its look."""
    width = 0.8 / len(series)
    for index, (label, look) in enumerate(figures.looks_of(series, _LOOKS).items()):
        places = np.arange(names) + (index - (len(series) - 1) / 2) * width
        yield places, width, series[label], {"label": label, **look}
