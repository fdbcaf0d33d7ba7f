"""What single runs reached, and their mean: as dots, or against the size of the network."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ._figures import COLOURS, HEIGHT, MARKERS, WIDTH, looks_of, new_figure, panels_of
from ._parts import finish_panel, legend_below, size_axis

Network = tuple[str, float, Sequence[float]]
"""A name to stand at the point, million parameters, and the accuracies of its runs in percent."""


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
