"""Matrices, colour images and kernels as pictures; on negative values stands a dot."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from ._figures import COLOURS, HEIGHT, WIDTH, Series, new_figure, panels_of

Array = NDArray[Any]

_PALE, _STRONG = 0.1, 0.6  # of a scale: no dot on smaller values, a white one on larger ones
_MOST = 16  # slices in a row that can still be told apart
_FEWEST = 10  # that many would fill the row; fewer leave room, or they would be too large
_FINE, _GAP = 6, 3  # pixels of the picture for each value of a slice, and between two slices
_FRAME = "#BBBBBB"  # between slices, so that pale ones have an edge
_WEIGHT = "weight (dot: negative)"
_WITHIN = 98  # percent of a kernel's values within the scale: few large ones would pale the others


def matrices(
    images: Series, *, colour_label: str, title: str = "", signed: bool = False, **labels: str
) -> Figure:
    """Matrices side by side on one colour scale; ``labels`` are xlabel and ylabel of all.

    If ``signed``, the scale is symmetric about 0, and negative values carry a dot. A picture in
    colour, shape (H, W, 3), may come first.
    """
    arrays = _arrays(images)
    low, high = min(a.min() for a in arrays.values()), max(a.max() for a in arrays.values())
    width = min(WIDTH, 1 + 3 * len(arrays))
    height = min(3.0, 1.2 + (width - 1) / len(arrays))  # square panels leave the rest empty
    figure, axes = panels_of(arrays, title, large=True)
    figure.set_size_inches(width, height)
    for name, axis in axes.items():
        if signed and arrays[name].ndim == 2:
            shown = _show_signed(axis, arrays[name], _largest(arrays))
        else:
            shown = axis.imshow(arrays[name], vmin=low, vmax=high, interpolation="nearest")
        axis.set(**labels)
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_locator(ticker.MaxNLocator(5, integer=True))
    label = f"{colour_label} (dot: negative)" if signed else colour_label
    figure.colorbar(shown, ax=figure.axes, label=label, shrink=0.9)
    return figure


def image_rows(
    rows: Series, captions: Mapping[str, Sequence[str]] | None = None, *, title: str = ""
) -> Figure:
    """Each row a few images in colour, shape (images, H, W, 3), uint8 or in [0, 1], or the slices
    of one kernel, shape (M, K, K); these are all on one scale symmetric about 0.

    ``captions`` holds, for the rows that have any, a text to stand above each image.
    """
    arrays = {label: np.asarray(images) for label, images in rows.items()}
    in_colour = all(images.ndim == 4 for images in arrays.values())
    inches, fontsize = (0.95, 8) if in_colour else (0.85, 9)
    figure = new_figure((WIDTH, min(HEIGHT, 0.5 + inches * len(arrays))), title)
    axes = figure.subplots(len(arrays), max(map(len, arrays.values())), squeeze=False)
    for row, (label, images) in zip(axes, arrays.items(), strict=True):
        for axis in row[len(images) :]:
            axis.axis("off")
        above = (captions or {}).get(label, [""] * len(images))
        for axis, image, caption in zip(row, images, above, strict=False):
            if in_colour:
                axis.imshow(image, interpolation="nearest")
            else:
                shown = _show_signed(axis, image, _largest(arrays))
            axis.set_title(caption, fontsize=fontsize)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set(visible=True, color="#999999", linewidth=0.5)  # pale slices end here
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    if not in_colour:
        figure.colorbar(shown, ax=figure.axes, label=_WEIGHT, shrink=0.8, aspect=15)
    return figure


def kernel_grids(
    grids: Series, framed: Mapping[str, str] | None = None, *, title: str = ""
) -> Figure:
    """Kernels, shape (N, M, K, K), side by side: row n is filter n, column m its slice m.

    All are on one scale symmetric about 0. ``framed`` says, for the grids that want it, whether the
    slices of each of the "rows" or of each of the "columns" stand in a frame.
    """
    kernels = _arrays(grids)
    figure, axes = panels_of(kernels, title, large=True)
    for name, axis in axes.items():
        filters, slices, size = kernels[name].shape[:3]
        pitch = size + 1  # a slice and a gap
        high, wide = filters * pitch - 1, slices * pitch - 1
        # a gap after every row and column of each slice, but for the last
        spaced = np.pad(kernels[name], ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
        picture = spaced.swapaxes(1, 2).reshape(high + 1, wide + 1)[:-1, :-1]
        shown = _show_signed(axis, picture, _largest(kernels))
        middle = (size - 1) / 2
        for scale, count in ((axis.xaxis, slices), (axis.yaxis, filters)):
            numbers = np.arange(count)
            scale.set_ticks(middle + pitch * numbers, [str(n + 1) for n in numbers])
        axis.set(xlabel="input channel m", ylabel="filter n")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        frames = {
            "rows": [(-1, start - 1, wide + 1, pitch) for start in range(0, high, pitch)],
            "columns": [(start - 1, -1, pitch, high + 1) for start in range(0, wide, pitch)],
        }
        look: dict[str, Any] = {"fill": False, "edgecolor": COLOURS[0], "linewidth": 1.8}
        for x, y, w, h in frames.get((framed or {}).get(name, ""), []):
            axis.add_patch(Rectangle((x + 0.1, y + 0.1), w - 0.2, h - 0.2, **look))
        axis.set(xlim=(-1.2, wide + 0.2), ylim=(high + 0.2, -1.2))
    figure.colorbar(shown, ax=figure.axes, label=_WEIGHT, shrink=0.8, aspect=15)
    return figure


def slice_grid(kernels: Series, *, title: str = "") -> Figure:
    """All slices of each kernel, shape (M, K, K), in rows one after another (paper, Figure 2).

    Each kernel has a scale of its own, symmetric about 0, which 98 % of its values keep within:
    colours tell how its slices relate to one another, not how large they are.
    """
    arrays = _arrays(kernels)
    wide, high = (WIDTH - 1) / len(arrays), HEIGHT - 0.7  # room for each, in inches
    columns = {name: _columns(len(kernel), wide / high) for name, kernel in arrays.items()}
    ratios = [-(-len(kernel) // columns[name]) / columns[name] for name, kernel in arrays.items()]
    height = min(high, wide * max(ratios)) + HEIGHT - high
    figure, axes = panels_of(arrays, title)
    figure.set_size_inches(WIDTH, height)
    for name, axis in axes.items():
        sizes = np.abs(arrays[name])
        limit = float(np.percentile(sizes, _WITHIN)) or float(sizes.max()) or 1
        shown = _show_slices(axis, arrays[name] / limit, columns[name], 1)
    label = "weight, relative (dot: negative)"
    bar = figure.colorbar(shown, ax=figure.axes, label=label, aspect=15, extend="both")
    bar.set_ticks([-1, 0, 1])
    return figure


def blueprint_fit(
    kernel: ArrayLike, blueprint: ArrayLike, weights: ArrayLike, *, title: str = "{kept:.0%} kept"
) -> Figure:
    """A kernel (M, K, K) above its reconstruction: ``weights``, shape (M,), times ``blueprint``.

    Slices stand in the order of their weights, the bars between the two rows; of more than 16, as
    many are picked evenly. ``{kept}`` in ``title`` is the share of energy that is kept.
    """
    slices, plane, factors = (np.asarray(a, dtype=float) for a in (kernel, blueprint, weights))
    fit = factors[:, None, None] * plane
    kept = 1 - np.square(slices - fit).sum() / (np.square(slices).sum() or 1)
    order = np.argsort(factors, kind="stable")
    picked = order[np.linspace(0, len(order) - 1, min(len(order), _MOST)).round().astype(int)]
    limit = float(np.abs(slices).max()) or 1
    row = 5.0 / max(_FEWEST, len(picked))  # inches
    figure = new_figure((WIDTH, min(HEIGHT, 1.7 + 2 * row)), title.format(kept=kept))
    grid = figure.add_gridspec(3, 2, width_ratios=(1, 5.0), height_ratios=(row, 0.7, row))
    right = above, middle, below = [figure.add_subplot(grid[i, 1]) for i in range(3)]
    aside: dict[str, Any] = {"rotation": 0, "ha": "right", "va": "center"}
    for axis, what, label in ((above, slices, "kernel"), (below, fit, "weight x\nblueprint")):
        shown = _show_slices(axis, what[picked], len(picked), limit)
        axis.set_ylabel(label, **aside)
    pitch = plane.shape[-1] * _FINE + _GAP
    at = _GAP + (pitch - _GAP) / 2 - 0.5 + pitch * np.arange(len(picked))
    colours = [COLOURS[1] if factor > 0 else COLOURS[0] for factor in factors[picked]]
    middle.bar(at, factors[picked], 0.6 * pitch, color=colours)
    middle.axhline(0, color="black", linewidth=0.8)
    middle.set_ylabel("weight", **aside)
    middle.set_xticks([])
    middle.spines["bottom"].set_visible(False)
    for axis in right:
        axis.set_xlim(-0.5, max(_FEWEST, len(picked)) * pitch + _GAP - 0.5)
    some = f"{len(picked)} of " if len(picked) < len(slices) else ""
    above.set_title(f"{some}its {len(slices)} slices, in the order of their weights", fontsize=9)
    left = figure.add_subplot(grid[:, 0])
    _show_slices(left, plane[None], 1, float(np.abs(plane).max()) or 1)
    left.set_title("blueprint\n(own scale)", fontsize=9)
    figure.colorbar(shown, ax=right, label="value (dot: negative)", shrink=0.8, aspect=15)
    return figure


def _columns(slices: int, ratio: float) -> int:
    """How many columns fill a panel ``ratio`` times as wide as high; rows are full if they can."""
    ideal = min(slices, max(1.0, np.sqrt(slices * ratio)))
    full = [n for n in range(1, slices + 1) if slices % n == 0]
    nearest = min(full, key=lambda n: max(n / ideal, ideal / n))
    return nearest if 2 / 3 < nearest / ideal < 3 / 2 else round(ideal)


def _show_slices(axis: Axes, kernel: Array, columns: int, limit: float) -> AxesImage:
    """The slices as one picture, with a frame around each."""
    rows = -(-len(kernel) // columns)
    high, wide = (size * _FINE + _GAP for size in kernel.shape[1:])
    picture = np.full((rows * high + _GAP, columns * wide + _GAP), np.nan)
    corners = picture.copy()  # each value in its upper left pixel alone
    for index, plane in enumerate(kernel):
        top, left = index // columns * high + _GAP, index % columns * wide + _GAP
        place = slice(top, top + high - _GAP), slice(left, left + wide - _GAP)
        picture[place] = plane.repeat(_FINE, axis=0).repeat(_FINE, axis=1)
        corners[place][::_FINE, ::_FINE] = plane
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    shown = _show_signed(axis, picture, limit, corners, side=_FINE)
    shown.set_cmap(shown.cmap.with_extremes(bad=_FRAME))
    return shown


def _show_signed(
    axis: Axes, picture: Array, limit: float, corners: Array | None = None, side: int = 1
) -> AxesImage:
    """On a scale symmetric about 0, with dots that tell signs apart where colours are not seen."""
    values = picture if corners is None else corners  # each fills side x side pixels
    rows, columns = np.nonzero(values < -_PALE * limit)
    if len(rows):
        size, inset = side / 3, (side - 1) / 2 - side / 6
        corners_of_dots = zip(columns + inset, rows + inset, strict=True)
        dots = [Rectangle(corner, size, size) for corner in corners_of_dots]
        colours = np.where(values[rows, columns] < -_STRONG * limit, "white", "#444444")
        axis.add_collection(PatchCollection(dots, facecolors=colours, linewidths=0))
    return axis.imshow(picture, cmap="PuOr_r", vmin=-limit, vmax=limit, interpolation="nearest")


def _arrays(values: Series) -> dict[str, Array]:
    return {name: np.asarray(array, dtype=float) for name, array in values.items()}


def _largest(arrays: Mapping[str, Array]) -> float:
    return max(float(np.abs(array).max()) for array in arrays.values())
