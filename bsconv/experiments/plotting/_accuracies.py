"""Accuracies of runs and published ones, against the size of the network."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ._curves import draw_curves
from ._figures import Series, finish_panel, logarithmic, looks_of, panels_of, with_legend

Network = tuple[str, float, Sequence[float]]
"""A name to stand at the point, million parameters, and the accuracies of its runs in percent."""

_LOOKS = looks_of(("dense", "BSConv-U", "BSConv-S"))  # the same in every figure
_PUBLISHED = "#999999"
_ACCURACY = "top-1 accuracy (%)"


class AccuracyLine(NamedTuple):
    """A network and its variants; each has a size and accuracies in percent.

    ``recorded`` and ``published`` are ``{variant: (million parameters, accuracies)}``; the variants
    are "dense", "BSConv-U" and "BSConv-S".
    """

    label: str
    recorded: Mapping[str, tuple[float, Sequence[float]]]
    published: Mapping[str, tuple[float, float]]


def accuracy_panels(
    panels: Mapping[str, Mapping[str, Sequence[Network]]], *, title: str = ""
) -> Figure:
    """Panels side by side, each ``{label: networks}``: top-1 accuracy against parameters.

    A line joins the networks of a label; several runs of one are drawn as their mean and range.
    """
    figure, axes = panels_of(panels, title, _ACCURACY)
    looks = looks_of(chain.from_iterable(panels.values()))
    for name, axis in axes.items():
        for label, networks in panels[name].items():
            texts, millions, runs = zip(*networks, strict=True)
            means = np.array([np.mean(values) for values in runs])
            spread = [means - list(map(min, runs)), list(map(max, runs)) - means]
            bars = spread if np.any(spread) else None
            axis.errorbar(millions, means, bars, capsize=3, label=label, **looks[label])
            look = {"color": looks[label]["color"], "fontsize": 7, "ha": "center"}
            for text, x, y in zip(texts, millions, means, strict=True):
                axis.annotate(text, (x, y), (0, -11), textcoords="offset points", **look)
        _size_axis(axis, margins=0.12)
        finish_panel(axis)
    return with_legend(figure)


def curves_and_sizes(
    accuracies: Series, sizes: Mapping[str, float], published: Iterable[tuple[float, float]]
) -> Figure:
    """Accuracies of runs after each epoch, and the last ones against million parameters, with what
    is ``published``: pairs of the two."""
    figure, axes = panels_of(["after each epoch", "after the last"], "", _ACCURACY, sharey=True)
    left, right = axes.values()
    looks = looks_of(accuracies)
    draw_curves(left, 1, accuracies, looks, most=12)
    left.set(xlabel="epoch")
    for point in published:
        right.plot(*point, "o", color=_PUBLISHED, markerfacecolor="white", label="published")
    for name, size in sizes.items():
        right.plot(size, np.asarray(accuracies[name])[-1], **looks[name])
    _size_axis(right, margins=0.12)
    for axis in axes.values():
        finish_panel(axis)
    return with_legend(figure, columns=2)


def accuracy_and_published(
    panels: Mapping[str, Sequence[AccuracyLine]], *, published: str = "published", title: str = ""
) -> Figure:
    """Panels side by side: what was recorded as filled markers, what is published as hollow ones.

    A line joins a network with its variants, dots lead from a recorded mean to what is published,
    bars span the lowest to the highest run. The legend calls hollow markers ``published``.
    """
    figure, axes = panels_of(panels, title, _ACCURACY, large=True)
    for name, axis in axes.items():
        for line in panels[name]:
            _draw_network(axis, line)
        _size_axis(axis, margins=0.08)
        axis.grid()
        _label_at_the_right(axis, panels[name])
    handles = [Line2D([], [], label=n, **look | {"linestyle": ""}) for n, look in _LOOKS.items()]
    grey: dict[str, Any] = {"color": "#555555", "marker": "o"}
    handles.append(Line2D([], [], linestyle="-", label="recorded, mean and range", **grey))
    grey |= {"markerfacecolor": "white", "markersize": 8}
    handles.append(Line2D([], [], linestyle="--", label=published, **grey))
    tight = {"handlelength": 2.5, "columnspacing": 1.2, "handletextpad": 0.5, "fontsize": 8}
    figure.legend(handles=handles, loc="outside lower center", ncols=5, **tight)
    return figure


def _size_axis(axis: Axes, margins: float) -> None:
    """Of what is drawn, x as the million parameters of a network: logarithmic, with few numbers."""
    axis.set(xlabel="million parameters", xscale="log")
    axis.margins(margins)
    low, high = axis.get_xlim()
    logarithmic(axis, "x", (1,) if high > 100 * low else (1, 3))


def _draw_network(axis: Axes, line: AccuracyLine) -> None:
    points = np.array(list(line.published.values())).reshape(-1, 2)
    axis.plot(*points.T, "--", color=_PUBLISHED, linewidth=1, zorder=1)
    for variant, (size, accuracy) in line.published.items():
        look = _LOOKS[variant]
        hollow = {"color": look["color"], "markerfacecolor": "white", "markersize": 9}
        axis.plot([size], [accuracy], look["marker"], zorder=2, **hollow)
    means = {variant: float(np.mean(runs)) for variant, (_, runs) in line.recorded.items()}
    sizes = [size for size, _ in line.recorded.values()]
    axis.plot(sizes, list(means.values()), "-", color="black", linewidth=1.2, zorder=3)
    for variant, (size, runs) in line.recorded.items():
        mean = means[variant]
        if variant in line.published:
            there = line.published[variant]
            axis.plot([size, there[0]], [mean, there[1]], ":", color=_PUBLISHED, zorder=1)
        bars = [[mean - min(runs)], [max(runs) - mean]]
        look = _LOOKS[variant] | {"linestyle": ""}
        axis.errorbar([size], [mean], bars, capsize=3, markersize=5.5, zorder=4, **look)


def _label_at_the_right(axis: Axes, lines: Iterable[AccuracyLine]) -> None:
    """Each label to the right of the panel, as near to the height of its network as fits."""
    largest = ((max(line.recorded.values(), key=lambda point: point[0]), line) for line in lines)
    ends = sorted((float(np.mean(runs)), size, line.label) for (size, runs), line in largest)
    low, high = axis.get_ylim()
    gap = 0.13 * (high - low)
    heights: list[float] = []
    for accuracy, *_ in ends:
        heights.append(max(accuracy, heights[-1] + gap) if heights else accuracy)
    excess = max(0.0, heights[-1] - high)
    arrow = {"arrowstyle": "-", "color": "#BBBBBB", "linewidth": 0.8, "shrinkB": 4}
    look: dict[str, Any] = {"va": "center", "fontsize": 8, "arrowprops": arrow}
    for (accuracy, size, label), height in zip(ends, heights, strict=True):
        at = (1.02, (height - excess - low) / (high - low))
        axis.annotate(label, (size, accuracy), at, textcoords="axes fraction", **look)
