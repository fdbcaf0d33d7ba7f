"""Figures from arrays; no file outside this package imports matplotlib.

Each function returns a figure that is to be shown with ``plt.show()``. Where a figure tells things
apart by colour, it does so by dash, marker or hatch as well.
"""

from matplotlib.figure import Figure

from ._accuracies import AccuracyLine, accuracy_and_published, accuracy_panels, curves_and_sizes
from ._bars import bar_rows, grouped_bars, stacked_shares, timing_bars
from ._curves import curve_panels, curves, damage_curve, dots, roofline
from ._figures import COLOURS, rendered, use_style
from ._images import blueprint_fit, image_rows, kernel_grids, matrices, slice_grid
from ._layers import excess_panels, layer_boxes
from ._schematics import schematic

__all__ = [
    "COLOURS", "AccuracyLine", "Figure", "accuracy_and_published", "accuracy_panels",
    "bar_rows", "blueprint_fit", "curve_panels", "curves", "curves_and_sizes", "damage_curve",
    "dots", "excess_panels", "grouped_bars", "image_rows", "kernel_grids", "layer_boxes",
    "matrices", "rendered", "roofline", "schematic", "slice_grid", "stacked_shares",
    "timing_bars", "use_style",
]  # fmt: skip
