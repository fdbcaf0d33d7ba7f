"""Matrices, colour images, and kernels as they are: in rows, or whole layers in a grid."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from ._figures import COLOURS, HEIGHT, WIDTH, mark_negatives, new_figure, panels_of


def matrices(
    images: Mapping[str, ArrayLike],
    *,
    colour_label: str,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    signed: bool = False,
) -> Figure:
    """Matrices side by side on one colour scale.

    If ``signed``, the scale is symmetric about 0, and negative values carry a dot.
    """
    arrays = _arrays(images)
    high = max(float(np.abs(a).max() if signed else a.max()) for a in arrays.values())
    low = -high if signed else min(float(a.min()) for a in arrays.values())
    width = min(WIDTH, 1 + 3 * len(arrays))
    height = min(3.0, 1.2 + (width - 1) / len(arrays))  # square panels leave the rest empty
    figure, axes = panels_of(arrays, title, figsize=(width, height))
    for name, axis in axes.items():
        array, colours = arrays[name], "PuOr_r" if signed else "cividis"
        shown = axis.imshow(array, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        if signed:
            mark_negatives(axis, array, high)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_locator(ticker.MaxNLocator(5, integer=True))
    if signed:
        colour_label += " (dot: negative)"
    figure.colorbar(shown, ax=list(axes.values()), label=colour_label, shrink=0.9)
    return figure


def image_rows(
    rows: Mapping[str, ArrayLike],
    captions: Mapping[str, Sequence[str]] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Each row a few colour images, shape (images, H, W, 3), uint8 or in [0, 1].

    ``captions`` holds, for the rows that have any, a text to stand above each image.
    """
    figure, _ = _in_rows(rows, captions or {}, title, inches=0.95, fontsize=8)
    return figure


def kernel_slices(
    rows: Mapping[str, ArrayLike],
    captions: Mapping[str, Sequence[str]] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Each row the slices, shape (M, K, K), of one kernel; all on one scale symmetric about 0.

    Negative values carry a dot. ``captions`` holds, for the rows that have any, a text to stand
    above each slice.
    """
    kernels = _arrays(rows)
    limit = max(float(np.abs(kernel).max()) for kernel in kernels.values())

    figure, shown = _in_rows(kernels, captions or {}, title, inches=0.85, fontsize=9, limit=limit)
    _weight_bar(figure, shown)
    return figure


def kernel_grids(
    grids: Mapping[str, ArrayLike], framed: Mapping[str, str] | None = None, *, title: str = ""
) -> Figure:
    """Kernels, shape (N, M, K, K), side by side: row n is filter n, column m its slice m.

    All are on one scale symmetric about 0, and negative values carry a dot. ``framed`` says, for
    the grids that want it, whether the slices of each of the "rows" or of each of the "columns"
    stand in a frame.
    """
    kernels = _arrays(grids)
    limit = max(float(np.abs(kernel).max()) for kernel in kernels.values())
    figure, axes = panels_of(kernels, title)
    for name, axis in axes.items():
        filters, slices, size = kernels[name].shape[:3]
        pitch = size + 1  # a slice and a gap
        picture = np.full((filters * pitch - 1, slices * pitch - 1), np.nan)
        for n, m in np.ndindex(filters, slices):
            top, left = n * pitch, m * pitch
            picture[top : top + size, left : left + size] = kernels[name][n, m]
        shown = axis.imshow(picture, cmap="PuOr_r", vmin=-limit, vmax=limit)
        mark_negatives(axis, picture, limit)
        middle = (size - 1) / 2
        for set_ticks, count in ((axis.set_xticks, slices), (axis.set_yticks, filters)):
            set_ticks(
                [middle + i * pitch for i in range(count)], [f"{i + 1}" for i in range(count)]
            )
        axis.set(xlabel="input channel m", ylabel="filter n")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        high, wide = picture.shape
        frames = {
            "rows": [(-1, start - 1, wide + 1, pitch) for start in range(0, high, pitch)],
            "columns": [(start - 1, -1, pitch, high + 1) for start in range(0, wide, pitch)],
        }
        look: dict[str, Any] = {"fill": False, "edgecolor": COLOURS[0], "linewidth": 1.8}
        for x, y, w, h in frames.get((framed or {}).get(name, ""), []):
            axis.add_patch(Rectangle((x + 0.1, y + 0.1), w - 0.2, h - 0.2, **look))
        axis.set(xlim=(-1.2, wide + 0.2), ylim=(high + 0.2, -1.2))
    _weight_bar(figure, shown)
    return figure


def _arrays(values: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.float64]]:
    return {name: np.asarray(array, dtype=float) for name, array in values.items()}


def _weight_bar(figure: Figure, shown: AxesImage) -> None:
    label = "weight (dot: negative)"
    figure.colorbar(shown, ax=figure.axes, label=label, shrink=0.8, aspect=15)


def _in_rows(
    rows: Mapping[str, ArrayLike],
    captions: Mapping[str, Sequence[str]],
    title: str,
    *,
    inches: float,
    fontsize: float,
    limit: float | None = None,
) -> tuple[Figure, AxesImage]:
    """A row of pictures, ``inches`` high, for each label; the last picture comes back as well.

    With a ``limit`` they are matrices on a scale up to it, else colour images.
    """
    arrays = {label: np.asarray(images) for label, images in rows.items()}
    scale = {} if limit is None else {"cmap": "PuOr_r", "vmin": -limit, "vmax": limit}
    figure = new_figure((WIDTH, min(HEIGHT, 0.5 + inches * len(arrays))))
    axes = figure.subplots(len(arrays), max(map(len, arrays.values())), squeeze=False)
    for row, (label, images) in zip(axes, arrays.items(), strict=True):
        for axis in row[len(images) :]:
            axis.axis("off")
        above = captions.get(label, [""] * len(images))
        for axis, image, caption in zip(row, images, above, strict=False):
            shown = axis.imshow(image, interpolation="nearest", **scale)
            if limit is not None:
                mark_negatives(axis, image, limit)
            axis.set_title(caption, fontsize=fontsize)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set(visible=True, color="#999999", linewidth=0.5)  # pale slices end here
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    figure.suptitle(title)
    return figure, shown
