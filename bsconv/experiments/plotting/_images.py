"""Matrices and colour images."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ._figures import subplots
from ._parts import array_of, bare, mark_negatives, places
from ._style import HEIGHT, WIDTH


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
    arrays = {name: array_of(f"images[{name!r}]", image, 2) for name, image in images.items()}
    if not arrays:
        raise ValueError("images needs at least one matrix, got none")
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
        axis.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
        axis.yaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
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
    most = max(map(len, arrays.values()), default=1)
    height = min(HEIGHT, 0.5 + 0.95 * len(arrays))
    figure, axes = subplots(max(1, len(arrays)), most, figsize=(WIDTH, height), squeeze=False)
    for row, (label, images) in zip(axes, arrays.items(), strict=False):
        above = (captions or {}).get(label, [""] * len(images))
        for axis in row[len(images) :]:
            axis.axis("off")
        for axis, image, caption in zip(row, images, above, strict=False):
            axis.imshow(image, interpolation="nearest")
            axis.set_title(caption, fontsize=8)
            bare(axis)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    figure.suptitle(title)
    return figure
