"""Kernels as they are: slices in rows, or whole layers in a grid."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from ._figures import subplots
from ._parts import array_of, bare, mark_negatives, places
from ._style import COLOURS, HEIGHT, WIDTH


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
    kernels = {label: array_of(f"rows[{label!r}]", kernel, 3) for label, kernel in rows.items()}
    if not kernels:
        raise ValueError("rows needs at least one kernel, got none")
    most = max(len(kernel) for kernel in kernels.values())
    limit = max(float(np.abs(kernel).max()) for kernel in kernels.values())
    height = min(HEIGHT, 0.5 + 0.85 * len(kernels))
    figure, axes = subplots(len(kernels), most, figsize=(WIDTH, height), squeeze=False)
    for row, (label, kernel) in zip(axes, kernels.items(), strict=True):
        above = (captions or {}).get(label, [""] * len(kernel))
        for axis in row[len(kernel) :]:
            axis.axis("off")
        for axis, image, caption in zip(row, kernel, above, strict=False):
            shown = axis.imshow(image, cmap="PuOr_r", vmin=-limit, vmax=limit)
            mark_negatives(axis, places(image), limit)
            axis.set_title(caption, fontsize=9)
            bare(axis)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    figure.colorbar(shown, ax=axes, label="weight (dot: negative)", shrink=0.8, aspect=15)
    figure.suptitle(title)
    return figure


def kernel_grids(
    grids: Mapping[str, ArrayLike],
    framed: Mapping[str, str] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Kernels, shape (N, M, K, K), side by side: row n is filter n, column m its slice m.

    All are on one scale symmetric about 0, and negative values carry a dot. ``framed`` says, for
    the grids that want it, whether the slices of each of the "rows" or of each of the "columns"
    stand in a frame.
    """
    kernels = {name: array_of(f"grids[{name!r}]", kernel, 4) for name, kernel in grids.items()}
    if not kernels:
        raise ValueError("grids needs at least one kernel, got none")
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
