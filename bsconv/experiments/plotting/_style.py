"""How all figures look: sizes, and what tells their parts apart."""

from collections.abc import Iterable
from itertools import cycle
from typing import Any

import matplotlib as mpl
from cycler import cycler

# Okabe & Ito (2008): told apart with any colour vision. Their yellow is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# never colour alone: a curve keeps its dash and marker in print and in greyscale
DASHES = ("-", "--", "-.", ":", "-", "--", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "////", "....", "xxxx", "----", "\\\\\\\\", "++++")
WIDTH, HEIGHT = 7.0, 3.5  # inches, the most a figure may have


def use_style() -> None:
    """Set how all figures of a notebook look: 7 x 3.5 inches at most, on white, 100 dpi."""
    mpl.rcParams.update(
        {
            "figure.figsize": (WIDTH, HEIGHT),
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "savefig.dpi": 100,
            "savefig.facecolor": "white",
            "axes.facecolor": "white",
            "axes.prop_cycle": (
                cycler(color=COLOURS) + cycler(linestyle=DASHES) + cycler(marker=MARKERS)
            ),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": "#DDDDDD",
            "lines.linewidth": 1.5,
            "lines.markersize": 4,
            "legend.frameon": False,
            "legend.handlelength": 3.5,  # room for a dash next to the marker
            "font.size": 9,
            "image.cmap": "cividis",
        }
    )


def looks_of(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, dash and marker for each label, in the order in which they first come."""
    styles = cycle(zip(COLOURS, DASHES, MARKERS, strict=True))
    return {
        label: {"color": colour, "linestyle": dash, "marker": marker}
        for label, (colour, dash, marker) in zip(dict.fromkeys(labels), styles, strict=False)
    }
