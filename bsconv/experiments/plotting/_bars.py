"""Amounts as bars: side by side, or as shares of a whole."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ._figures import subplots
from ._parts import legend_below, plain_ticks
from ._style import COLOURS, HATCHES

_NARROWEST_LABELLED = 0.08  # a thinner segment has no room for its number
_MOST_NUMBERED = 24  # more bars from top to bottom have no room for theirs
_MOST_NAMED = 24  # more rows have no room for all their names


def stacked_shares(
    panels: Mapping[str, Mapping[str, Mapping[str, float]]], *, title: str = ""
) -> Figure:
    """Panels side by side, each ``{bar: {part: amount}}``: what share of each bar is which part.

    All panels name the same bars; a part that a bar lacks counts as 0. Bars run from the top.
    """
    if not panels:
        raise ValueError("panels needs at least one panel, got none")
    bars = list(next(iter(panels.values())))
    parts = list(
        dict.fromkeys(part for panel in panels.values() for bar in panel.values() for part in bar)
    )
    figure, axes = subplots(1, len(panels), sharey=True, squeeze=False)
    for axis, (name, panel) in zip(axes[0], panels.items(), strict=True):
        if list(panel) != bars:
            raise ValueError(f"panels need the same bars, {bars}, got {list(panel)} in {name!r}")
        totals = np.array([sum(panel[bar].values()) for bar in bars])
        left = np.zeros(len(bars))
        for index, part in enumerate(parts):
            share = np.array([panel[bar].get(part, 0.0) for bar in bars]) / totals
            drawn = axis.barh(
                bars,
                share,
                left=left,
                color=COLOURS[index % len(COLOURS)],
                hatch=HATCHES[index % len(HATCHES)],
                edgecolor="white",
                label=part,
            )
            numbers = [f"{s:.0%}" if s >= _NARROWEST_LABELLED else "" for s in share]
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
            for text in axis.bar_label(drawn, numbers, label_type="center", fontsize=8):
                if text.get_text():
                    text.set_bbox(box)
            left += share
        axis.set(title=name, xlabel="share", xlim=(0, 1), xticks=(0, 0.5, 1))
        axis.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(parts))
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
    axis.grid(axis="y")
    axis.set_axisbelow(True)
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
    axis.grid(axis="x")
    axis.set_axisbelow(True)
    legend_below(figure, [axis])
    return figure


def _side_by_side(
    names: Sequence[str], series: Mapping[str, Sequence[float]]
) -> Iterator[tuple[NDArray[np.floating], Sequence[float], dict[str, Any]]]:
    """For each series the places of its bars, their values and their look."""
    width = 0.8 / max(1, len(series))
    looks = zip(cycle(COLOURS), cycle(HATCHES), strict=False)
    for index, (label, values) in enumerate(series.items()):
        if len(values) != len(names):
            raise ValueError(
                f"series[{label!r}] needs one value for each of {len(names)} names, "
                f"got {len(values)}"
            )
        colour, hatch = next(looks)
        place = np.arange(len(names)) + (index - (len(series) - 1) / 2) * width
        look = {"width": width, "color": colour, "hatch": hatch, "edgecolor": "white"}
        yield place, values, {**look, "label": label}
