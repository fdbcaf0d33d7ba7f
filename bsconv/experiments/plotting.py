"""Figures from arrays; the only file of the package that imports matplotlib."""

import matplotlib as mpl
from cycler import cycler

__all__ = ["COLOURS", "use_style"]

# Okabe & Ito (2008): told apart with any colour vision. Their yellow is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# never colour alone: a curve keeps its dash and marker in print and in greyscale
_DASHES = ("-", "--", "-.", ":", "-", "--", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def use_style() -> None:
    """Set how all figures of a notebook look: 7 x 3.5 inches at most, on white, 100 dpi."""
    mpl.rcParams.update(
        {
            "figure.figsize": (7.0, 3.5),
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "savefig.dpi": 100,
            "savefig.facecolor": "white",
            "axes.facecolor": "white",
            "axes.prop_cycle": (
                cycler(color=COLOURS) + cycler(linestyle=_DASHES) + cycler(marker=_MARKERS)
            ),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": "#DDDDDD",
            "lines.linewidth": 1.5,
            "lines.markersize": 4,
            "legend.frameon": False,
            "font.size": 9,
            "image.cmap": "cividis",
        }
    )
