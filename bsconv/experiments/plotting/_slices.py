"""One kernel slice by slice: all slices, or some compared with the closest blueprint."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike, NDArray

from ._figures import COLOURS, HEIGHT, WIDTH, mark_negatives, new_figure, panels_of

_MOST = 16  # slices in a row that can still be told apart
_FEWEST = 10  # that many would fill the row; fewer leave room, or they would be too large
_FINE, _GAP = 6, 3  # pixels of the picture for each value of a slice, and between two slices
_FRAME = "#BBBBBB"  # between slices, so that pale ones have an edge
_WITHIN = 98  # percent of a kernel's values within the scale: few large ones would pale the others


def slice_grid(kernels: Mapping[str, ArrayLike], *, title: str = "") -> Figure:
    """All slices of each kernel, shape (M, K, K), in rows one after another (paper, Figure 2).

    Kernels stand side by side, each on a scale of its own, symmetric about 0, which 98 % of its
    values keep within: colours tell how the slices of a kernel relate to one another, not how large
    kernels are. Negative values carry a dot, for readers and printers without colours.
    """
    arrays = {name: np.asarray(kernel, dtype=float) for name, kernel in kernels.items()}
    wide, high = (WIDTH - 1) / len(arrays), HEIGHT - 0.7  # room for each, in inches
    columns = {name: _columns(len(kernel), wide / high) for name, kernel in arrays.items()}
    ratios = [-(-len(kernel) // columns[name]) / columns[name] for name, kernel in arrays.items()]
    height = min(high, wide * max(ratios)) + HEIGHT - high
    figure, axes = panels_of(arrays, title, figsize=(WIDTH, height), fontsize=9)
    for name, axis in axes.items():
        sizes = np.abs(arrays[name])
        limit = float(np.percentile(sizes, _WITHIN)) or float(sizes.max()) or 1
        shown = _show(axis, arrays[name] / limit, columns[name], 1)
    label = "weight, relative (dot: negative)"
    bar = figure.colorbar(shown, ax=figure.axes, label=label, aspect=15, extend="both")
    bar.set_ticks([-1, 0, 1])
    return figure


def blueprint_fit(
    kernel: ArrayLike, blueprint: ArrayLike, weights: ArrayLike, *, title: str = "{kept:.0%} kept"
) -> Figure:
    """A kernel (M, K, K) above its reconstruction: ``weights``, shape (M,), times ``blueprint``.

    Slices stand in the order of their weights, which are drawn as bars between the two rows; of
    more than 16, as many are picked evenly from that order. In ``title``, ``{kept}`` becomes the
    share of the kernel's energy that the reconstruction keeps.
    """
    slices, plane, factors = (np.asarray(a, dtype=float) for a in (kernel, blueprint, weights))
    fit = factors[:, None, None] * plane
    kept = 1 - np.square(slices - fit).sum() / (np.square(slices).sum() or 1)
    order = np.argsort(factors, kind="stable")
    picked = order[np.linspace(0, len(order) - 1, min(len(order), _MOST)).round().astype(int)]
    limit = float(np.abs(slices).max()) or 1
    row = 5.0 / max(_FEWEST, len(picked))  # inches
    figure = new_figure((WIDTH, min(HEIGHT, 1.7 + 2 * row)))
    grid = figure.add_gridspec(3, 2, width_ratios=(1, 5.0), height_ratios=(row, 0.7, row))
    right = above, middle, below = [figure.add_subplot(grid[i, 1]) for i in range(3)]
    for axis, what, label in ((above, slices, "kernel"), (below, fit, "weight x\nblueprint")):
        shown = _show(axis, what[picked], len(picked), limit)
        axis.set_ylabel(label, rotation=0, ha="right", va="center")
    pitch = plane.shape[-1] * _FINE + _GAP
    at = _GAP + (pitch - _GAP) / 2 - 0.5 + pitch * np.arange(len(picked))
    colours = [COLOURS[1] if factor > 0 else COLOURS[0] for factor in factors[picked]]
    middle.bar(at, factors[picked], 0.6 * pitch, color=colours)
    middle.axhline(0, color="black", linewidth=0.8)
    middle.set_ylabel("weight", rotation=0, ha="right", va="center")
    middle.set_xticks([])
    middle.spines["bottom"].set_visible(False)
    for axis in right:
        axis.set_xlim(-0.5, max(_FEWEST, len(picked)) * pitch + _GAP - 0.5)
    some = f"{len(picked)} of " if len(picked) < len(slices) else ""
    above.set_title(f"{some}its {len(slices)} slices, in the order of their weights", fontsize=9)
    left = figure.add_subplot(grid[:, 0])
    _show(left, plane[None], 1, float(np.abs(plane).max()) or 1)
    left.set_title("blueprint\n(own scale)", fontsize=9)
    figure.colorbar(shown, ax=right, label="value (dot: negative)", shrink=0.8, aspect=15)
    figure.suptitle(title.format(kept=kept))
    return figure


def _columns(slices: int, ratio: float) -> int:
    """How many columns fill a panel ``ratio`` times as wide as high; rows are full if they can."""
    ideal = min(slices, max(1.0, np.sqrt(slices * ratio)))
    full = [n for n in range(1, slices + 1) if slices % n == 0]
    nearest = min(full, key=lambda n: max(n / ideal, ideal / n))
    return nearest if 2 / 3 < nearest / ideal < 3 / 2 else round(ideal)


def _show(axis: Axes, kernel: NDArray[np.float64], columns: int, limit: float) -> AxesImage:
    """The slices as one picture, with a frame around each and a dot on negative values."""
    rows = -(-len(kernel) // columns)
    high, wide = (size * _FINE + _GAP for size in kernel.shape[1:])
    picture = np.full((rows * high + _GAP, columns * wide + _GAP), np.nan)
    corners = picture.copy()  # the upper left pixel of each value
    for index, plane in enumerate(kernel):
        top, left = index // columns * high + _GAP, index % columns * wide + _GAP
        place = slice(top, top + high - _GAP), slice(left, left + wide - _GAP)
        picture[place] = plane.repeat(_FINE, axis=0).repeat(_FINE, axis=1)
        corners[place][::_FINE, ::_FINE] = plane
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    colours = mpl.colormaps["PuOr_r"].with_extremes(bad=_FRAME)
    shown = axis.imshow(picture, cmap=colours, vmin=-limit, vmax=limit, interpolation="nearest")
    mark_negatives(axis, corners, limit, side=_FINE)
    return shown
