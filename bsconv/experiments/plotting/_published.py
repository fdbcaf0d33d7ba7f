"""Accuracies of recorded runs and published ones, against the size of the network."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ._figures import looks_of, panels_of, size_axis

_LOOKS = looks_of(("dense", "BSConv-U", "BSConv-S"))  # the same in every figure
_PUBLISHED = "#999999"
_TIGHT: dict[str, Any] = {"handlelength": 2.5, "columnspacing": 1.2, "handletextpad": 0.5}


class AccuracyLine(NamedTuple):
    """A network and its variants; each has a size and accuracies in percent.

    ``recorded`` and ``published`` are ``{variant: (million parameters, accuracies)}``; the variants
    are "dense", "BSConv-U" and "BSConv-S".
    """

    label: str
    recorded: Mapping[str, tuple[float, Sequence[float]]]
    published: Mapping[str, tuple[float, float]]


def accuracy_and_published(
    panels: Mapping[str, Sequence[AccuracyLine]], *, published: str = "published", title: str = ""
) -> Figure:
    """Panels side by side: what was recorded as filled markers, what is published as hollow ones.

    A line joins a network with its variants; dots lead from a recorded mean to what is published of
    the same. Bars span the lowest to the highest run. ``published`` is what the legend calls the
    hollow markers.
    """
    figure, axes = panels_of(panels, title)
    for name, axis in axes.items():
        for line in panels[name]:
            _draw_published(axis, line)
        for line in panels[name]:
            _draw_recorded(axis, line)
        size_axis(axis, margins=0.08)
        axis.grid()
        _label_at_the_right(axis, panels[name])
    figure.axes[0].set_ylabel("top-1 accuracy (%)")
    handles = [Line2D([], [], label=n, **look | {"linestyle": ""}) for n, look in _LOOKS.items()]
    grey: dict[str, Any] = {"color": "#555555", "marker": "o"}
    handles.append(Line2D([], [], linestyle="-", label="recorded, mean and range", **grey))
    grey |= {"markerfacecolor": "white", "markersize": 8}
    handles.append(Line2D([], [], linestyle="--", label=published, **grey))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8, **_TIGHT)
    return figure


def _draw_recorded(axis: Axes, line: AccuracyLine) -> None:
    sizes = [size for size, _ in line.recorded.values()]
    means = [float(np.mean(runs)) for _, runs in line.recorded.values()]
    axis.plot(sizes, means, "-", color="black", linewidth=1.2, zorder=3)
    for (variant, (size, runs)), mean in zip(line.recorded.items(), means, strict=True):
        if variant in line.published:
            there = line.published[variant]
            axis.plot([size, there[0]], [mean, there[1]], ":", color=_PUBLISHED, zorder=1)
        bars = [[mean - min(runs)], [max(runs) - mean]]
        look = _LOOKS[variant] | {"linestyle": ""}
        axis.errorbar([size], [mean], bars, capsize=3, markersize=5.5, zorder=4, **look)


def _draw_published(axis: Axes, line: AccuracyLine) -> None:
    points = np.array(list(line.published.values())).reshape(-1, 2)
    axis.plot(*points.T, "--", color=_PUBLISHED, linewidth=1, zorder=1)
    for variant, (size, accuracy) in line.published.items():
        look = _LOOKS[variant]
        hollow = {"color": look["color"], "markerfacecolor": "white", "markersize": 9}
        axis.plot([size], [accuracy], look["marker"], zorder=2, **hollow)


def _label_at_the_right(axis: Axes, lines: Iterable[AccuracyLine]) -> None:
    """Each label to the right of the panel, as near to the height of its network as fits."""
    ends = sorted(
        (float(np.mean(runs)), size, line.label)
        for line in lines
        for size, runs in [max(line.recorded.values(), key=lambda point: point[0])]
    )
    low, high = axis.get_ylim()
    gap = 0.13 * (high - low)
    heights: list[float] = []
    for accuracy, *_ in ends:
        heights.append(max(accuracy, heights[-1] + gap) if heights else accuracy)
    excess = max(0.0, heights[-1] - high)
    for (accuracy, size, label), height in zip(ends, heights, strict=True):
        at = (height - excess - low) / (high - low)
        axis.annotate(
            label,
            (size, accuracy),
            (1.02, at),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": "#BBBBBB", "linewidth": 0.8, "shrinkB": 4},
        )
