"""Figures from arrays; no file outside this package imports matplotlib.

Each function returns a figure that is to be shown with ``plt.show()``. Where a figure tells things
apart by colour, it does so by dash, marker or hatch as well.
"""

from ._bars import grouped_bars, stacked_shares
from ._curves import curve_panels, curves
from ._images import image_rows, matrices
from ._kernels import kernel_grids, kernel_slices
from ._runs import accuracy_panels, dots
from ._style import COLOURS, use_style

__all__ = [
    "COLOURS",
    "accuracy_panels",
    "curve_panels",
    "curves",
    "dots",
    "grouped_bars",
    "image_rows",
    "kernel_grids",
    "kernel_slices",
    "matrices",
    "stacked_shares",
    "use_style",
]
