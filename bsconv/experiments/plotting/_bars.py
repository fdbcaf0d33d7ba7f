"""Amounts as bars: side by side, as shares of a whole, or with the spread of what was measured."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ._figures import subplots
from ._parts import grid_below, legend_below, plain_ticks
from ._style import COLOURS, HATCHES

_NARROWEST_LABELLED = 0.08  # a thinner segment has no room for its number
_MOST_NUMBERED = 24  # more bars from top to bottom have no room for theirs
_MOST_NAMED = 24  # more rows have no room for all their names
_MOST_PANELS = 4  # more have no room for the names in them


def stacked_shares(
    panels: Mapping[str, Mapping[str, Mapping[str, float]]], *, title: str = ""
) -> Figure:
    """Panels side by side, each ``{bar: {part: amount}}``: what share of each bar is which part.

    All panels name the same bars; a part that a bar lacks counts as 0. Bars run from the top.
    """
    if not panels:
        raise ValueError("panels needs at least one panel, got none")
    bars = list(next(iter(panels.values())))
    amounts = [bar for panel in panels.values() for bar in panel.values()]
    parts = dict.fromkeys(part for bar in amounts for part in bar)
    figure, axes = subplots(1, len(panels), sharey=True, squeeze=False)
    for axis, (name, panel) in zip(axes[0], panels.items(), strict=True):
        if list(panel) != bars:
            raise ValueError(f"panels need the same bars, {bars}, got {list(panel)} in {name!r}")
        totals = np.array([sum(panel[bar].values()) for bar in bars])
        left = np.zeros(len(bars))
        for index, part in enumerate(parts):
            share = np.array([panel[bar].get(part, 0.0) for bar in bars]) / totals
            drawn = axis.barh(bars, share, left=left, label=part, **_look(index))
            numbers = [f"{s:.0%}" if s >= _NARROWEST_LABELLED else "" for s in share]
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
            for text in axis.bar_label(drawn, numbers, label_type="center", fontsize=8):
                if text.get_text():
                    text.set_bbox(box)
            left += share
        axis.set(title=name, xlabel="share", xlim=(0, 1), xticks=(0, 0.5, 1))
        axis.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    axes[0, 0].invert_yaxis()
    legend_below(figure, axes[0, :1])
    figure.suptitle(title)
    return figure


def grouped_bars(
    names: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    ylabel: str,
    xlabel: str = "",
    title: str = "",
    log: bool = False,
    number: str = "",
) -> Figure:
    """For each name one bar of each series, side by side.

    ``number`` is the format in which a bar carries its value, such as "{:.0f} %"; empty for none.
    """
    figure, axis = subplots()
    for place, values, look in _side_by_side(names, series):
        drawn = axis.bar(place, values, **look)
        if number:
            axis.bar_label(drawn, fmt=number, fontsize=8, padding=1)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if log:
        axis.set_yscale("log")
        plain_ticks(axis.yaxis)
        lowest = min(min(values) for values in series.values())
        axis.set_ylim(bottom=10 ** np.floor(np.log10(lowest)))
    slanted = sum(map(len, names)) > 90
    turn: dict[str, Any] = {"rotation": 45, "ha": "right"} if slanted else {}
    axis.set_xticks(range(len(names)), names, **turn)
    grid_below(axis, "y")
    if len(series) > 1:
        axis.legend()
    return figure


def bar_rows(
    names: Sequence[str], series: Mapping[str, Sequence[float]], *, xlabel: str, title: str = ""
) -> Figure:
    """For each name, from the top, one bar of each series, with its value where there is room."""
    if not names:
        raise ValueError("names needs at least one, got none")
    figure, axis = subplots()
    for place, values, look in _side_by_side(names, series):
        look["height"] = look.pop("width")
        drawn = axis.barh(place, values, **look)
        if len(names) * len(series) <= _MOST_NUMBERED:
            axis.bar_label(drawn, fmt="{:,.0f}", fontsize=7, padding=2)
    every = -(-len(names) // _MOST_NAMED)
    size = 8 if len(names) <= 12 else 6
    axis.set_yticks(range(0, len(names), every), names[::every], fontsize=size)
    axis.set(xlabel=xlabel, title=title, ylim=(len(names) - 0.5, -0.5))
    axis.margins(x=0.12)
    axis.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    grid_below(axis, "x")
    legend_below(figure, [axis])
    return figure


def timing_bars(
    panels: Mapping[str, Mapping[str, Mapping[str, tuple[float, float, float]]]],
    *,
    ylabel: str,
    title: str = "",
) -> Figure:
    """Panels side by side, each ``{series: {name: (middle, low, high)}}``, each on its own scale.

    For each name one bar of each series that has it, as high as its middle; a line on it spans from
    low to high. A series looks the same in all panels, a name stands at the same place.
    """
    if not 1 <= len(panels) <= _MOST_PANELS:
        raise ValueError(f"panels need to be 1 to {_MOST_PANELS}, got {len(panels)}")
    everything = [series for panel in panels.values() for series in panel.items()]
    labels = list(dict.fromkeys(label for label, _ in everything))
    names = list(dict.fromkeys(name for _, bars in everything for name in bars))
    if not names:
        raise ValueError("panels need at least one bar, got none")
    width = 0.8 / len(labels)
    figure, axes = subplots(1, len(panels), squeeze=False)
    for axis, (heading, panel) in zip(axes[0], panels.items(), strict=True):
        for label, bars in panel.items():
            index = labels.index(label)
            shift = (index - (len(labels) - 1) / 2) * width
            middle, low, high = np.array(list(bars.values()), dtype=float).T
            drawn = axis.bar(
                [names.index(name) + shift for name in bars],
                middle,
                width,
                yerr=[middle - low, high - middle],
                error_kw={"capsize": 3, "linewidth": 1},
                label=label,
                **_look(index),
            )
            axis.bar_label(drawn, [f"{value:.3g}" for value in middle], fontsize=7, padding=2)
        axis.set_title(heading, fontsize=9)
        shown = [name.replace(", ", "\n") for name in names]
        axis.set_xticks(range(len(names)), shown, fontsize=8 if len(panels) < 3 else 6)
        axis.margins(y=0.12)
        grid_below(axis, "y")
    axes[0, 0].set_ylabel(ylabel)
    legend_below(figure, axes[0])
    figure.suptitle(title)
    return figure


def _side_by_side(
    names: Sequence[str], series: Mapping[str, Sequence[float]]
) -> Iterator[tuple[NDArray[np.floating], Sequence[float], dict[str, Any]]]:
    """For each series the places of its bars, their values and their look."""
    width = 0.8 / max(1, len(series))
    for index, (label, values) in enumerate(series.items()):
        if len(values) != len(names):
            raise ValueError(
                f"series[{label!r}] needs one value for each of {len(names)} names, "
                f"got {len(values)}"
            )
        place = np.arange(len(names)) + (index - (len(series) - 1) / 2) * width
        yield place, values, {"width": width, "label": label, **_look(index)}


def _look(index: int) -> dict[str, Any]:
    colour, hatch = COLOURS[index % len(COLOURS)], HATCHES[index % len(HATCHES)]
    return {"color": colour, "hatch": hatch, "edgecolor": "white"}
