"""Matrices, colour images, and kernels as they are: in rows, or whole layers in a grid."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from ._figures import subplots
from ._parts import arrays_of, mark_negatives, places
from ._style import COLOURS, HEIGHT, WIDTH


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
    arrays = arrays_of("images", images, 2, "matrix")
    high = max(float(np.abs(a).max() if signed else a.max()) for a in arrays.values())
    low = -high if signed else min(float(a.min()) for a in arrays.values())
    width = min(WIDTH, 1 + 3 * len(arrays))
    height = min(3.0, 1.2 + (width - 1) / len(arrays))  # square panels leave the rest empty
    figure, axes = subplots(1, len(arrays), figsize=(width, height), squeeze=False)
    for axis, (name, array) in zip(axes[0], arrays.items(), strict=True):
        colours = "PuOr_r" if signed else "cividis"
        shown = axis.imshow(array, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        if signed:
            mark_negatives(axis, places(array), high)
        axis.set(title=name, xlabel=xlabel, ylabel=ylabel)
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_locator(ticker.MaxNLocator(5, integer=True))
    if signed:
        colour_label += " (dot: negative)"
    figure.colorbar(shown, ax=axes, label=colour_label, shrink=0.9)
    figure.suptitle(title)
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
    arrays = {label: np.asarray(images) for label, images in rows.items()}
    for label, images in arrays.items():
        if images.ndim != 4 or images.shape[-1] != 3 or not len(images):
            raise ValueError(
                f"rows[{label!r}] needs shape (images, H, W, 3), got shape {images.shape}"
            )

    def draw(axis: Axes, image: NDArray[Any]) -> AxesImage:
        return axis.imshow(image, interpolation="nearest")

    figure, *_ = _in_rows(arrays, captions or {}, draw, inches=0.95, fontsize=8)
    figure.suptitle(title)
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
    kernels = arrays_of("rows", rows, 3, "kernel")
    limit = max(float(np.abs(kernel).max()) for kernel in kernels.values())

    def draw(axis: Axes, image: NDArray[np.float64]) -> AxesImage:
        mark_negatives(axis, places(image), limit)
        return axis.imshow(image, cmap="PuOr_r", vmin=-limit, vmax=limit)

    figure, axes, shown = _in_rows(kernels, captions or {}, draw, inches=0.85, fontsize=9)
    figure.colorbar(shown, ax=axes, label="weight (dot: negative)", shrink=0.8, aspect=15)
    figure.suptitle(title)
    return figure


def kernel_grids(
    grids: Mapping[str, ArrayLike], framed: Mapping[str, str] | None = None, *, title: str = ""
) -> Figure:
    """Kernels, shape (N, M, K, K), side by side: row n is filter n, column m its slice m.

    All are on one scale symmetric about 0, and negative values carry a dot. ``framed`` says, for
    the grids that want it, whether the slices of each of the "rows" or of each of the "columns"
    stand in a frame.
    """
    kernels = arrays_of("grids", grids, 4, "kernel")
    limit = max(float(np.abs(kernel).max()) for kernel in kernels.values())
    figure, axes = subplots(1, len(kernels), squeeze=False)
    for axis, (name, kernel) in zip(axes[0], kernels.items(), strict=True):
        filters, slices, size = kernel.shape[:3]
        pitch = size + 1  # a slice and a gap
        picture = np.full((filters * pitch - 1, slices * pitch - 1), np.nan)
        for n, m in np.ndindex(filters, slices):
            picture[n * pitch : n * pitch + size, m * pitch : m * pitch + size] = kernel[n, m]
        shown = axis.imshow(picture, cmap="PuOr_r", vmin=-limit, vmax=limit)
        mark_negatives(axis, places(picture), limit)
        middle = (size - 1) / 2
        axis.set_xticks([middle + m * pitch for m in range(slices)], range(1, slices + 1))
        axis.set_yticks([middle + n * pitch for n in range(filters)], range(1, filters + 1))
        axis.set(title=name, xlabel="input channel m", ylabel="filter n")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        high, wide = picture.shape
        for box in _frames((framed or {}).get(name, ""), pitch, high, wide):
            axis.add_patch(box)
        axis.set(xlim=(-1.2, wide + 0.2), ylim=(high + 0.2, -1.2))
    figure.colorbar(shown, ax=axes, label="weight (dot: negative)", shrink=0.8, aspect=15)
    figure.suptitle(title)
    return figure


def _frames(framed: str, pitch: int, high: int, wide: int) -> list[Rectangle]:
    """A frame around each row or each column of slices; none if neither is wanted."""
    if framed not in ("rows", "columns", ""):
        raise ValueError(f"framed needs to be 'rows' or 'columns', got {framed!r}")
    corners = {
        "rows": [(-1, start - 1, wide + 1, pitch) for start in range(0, high, pitch)],
        "columns": [(start - 1, -1, pitch, high + 1) for start in range(0, wide, pitch)],
    }.get(framed, [])
    look: dict[str, Any] = {"fill": False, "edgecolor": COLOURS[0], "linewidth": 1.8}
    return [Rectangle((x + 0.1, y + 0.1), w - 0.2, h - 0.2, **look) for x, y, w, h in corners]


def _in_rows(
    rows: Mapping[str, NDArray[Any]],
    captions: Mapping[str, Sequence[str]],
    draw: Callable[[Axes, NDArray[Any]], AxesImage],
    *,
    inches: float,
    fontsize: float,
) -> tuple[Figure, Any, Any]:
    """A row of pictures, ``inches`` high, for each label; the last picture comes back as well."""
    shown = None
    most = max(map(len, rows.values()), default=1)
    height = min(HEIGHT, 0.5 + inches * len(rows))
    figure, axes = subplots(max(1, len(rows)), most, figsize=(WIDTH, height), squeeze=False)
    for row, (label, images) in zip(axes, rows.items(), strict=False):
        for axis in row[len(images) :]:
            axis.axis("off")
        above = captions.get(label, [""] * len(images))
        for axis, image, caption in zip(row, images, above, strict=False):
            shown = draw(axis, image)
            axis.set_title(caption, fontsize=fontsize)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set(visible=True, color="#999999", linewidth=0.5)  # pale slices end here
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    return figure, axes, shown
