"""How long the same work takes in several ways, with the spread of what was measured."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ._figures import subplots
from ._parts import legend_below
from ._style import COLOURS, HATCHES

_MOST_PANELS = 4  # more have no room for their names


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
                color=COLOURS[index % len(COLOURS)],
                hatch=HATCHES[index % len(HATCHES)],
                edgecolor="white",
                label=label,
            )
            numbers = [f"{value:.3g}" for value in middle]
            axis.bar_label(drawn, numbers, fontsize=7, padding=2)
        axis.set_title(heading, fontsize=9)
        shown = [name.replace(", ", "\n") for name in names]
        axis.set_xticks(range(len(names)), shown, fontsize=8 if len(panels) < 3 else 6)
        axis.margins(y=0.12)
        axis.grid(axis="y")
        axis.set_axisbelow(True)
    axes[0, 0].set_ylabel(ylabel)
    legend_below(figure, axes[0])
    figure.suptitle(title)
    return figure
