"""Figures from arrays; no file outside this package imports matplotlib.

Each function returns a figure that is to be shown with ``plt.show()``. Where a figure tells things
apart by colour, it does so by dash, marker or hatch as well.
"""

from matplotlib.figure import Figure

from ._bars import bar_rows, grouped_bars, stacked_shares, timing_bars
from ._curves import accuracy_panels, curve_panels, curves, damage_curve, dots, trade_offs
from ._figures import COLOURS, rendered, use_style
from ._images import image_rows, kernel_grids, kernel_slices, matrices
from ._layers import excess_panels, layer_boxes
from ._published import AccuracyLine, accuracy_and_published
from ._roofline import roofline
from ._schematics import schematic
from ._slices import blueprint_fit, slice_grid

__all__ = [
    "COLOURS",
    "AccuracyLine",
    "Figure",
    "accuracy_and_published",
    "accuracy_panels",
    "bar_rows",
    "blueprint_fit",
    "curve_panels",
    "curves",
    "damage_curve",
    "dots",
    "excess_panels",
    "grouped_bars",
    "image_rows",
    "kernel_grids",
    "kernel_slices",
    "layer_boxes",
    "matrices",
    "rendered",
    "roofline",
    "schematic",
    "slice_grid",
    "stacked_shares",
    "timing_bars",
    "trade_offs",
    "use_style",
]
