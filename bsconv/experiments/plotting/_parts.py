"""What several figures need: dots on negative values, axes without ticks, one legend for all."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

_PALE, _STRONG = 0.1, 0.6  # of a scale: no dot on smaller values, a white one on larger ones


def mark_negatives(axis: Axes, picture: NDArray[Any], limit: float, side: int = 1) -> None:
    """A dot on each negative value of a picture on a scale up to ``limit``.

    It tells signs apart where colours are not seen. A value stands in the upper left corner of the
    ``side`` x ``side`` pixels that it fills; the others are NaN.
    """
    rows, columns = np.nonzero(picture < -_PALE * limit)
    if not len(rows):
        return
    middle, size = (side - 1) / 2, side / 3
    dots = [
        Rectangle((x + middle - side / 6, y + middle - side / 6), size, size)
        for x, y in zip(columns, rows, strict=True)
    ]
    strong = -picture[rows, columns] / limit > _STRONG
    colours = np.where(strong, "white", "#444444")
    axis.add_collection(PatchCollection(dots, facecolors=colours, linewidths=0))


def plain_ticks(axis: Axis, steps: Sequence[float] = (1, 2, 5)) -> None:
    """A logarithmic axis with 0.1, 0.2, 0.5, 1, ... written out."""
    axis.set_major_locator(ticker.LogLocator(subs=steps))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def size_axis(axis: Axes, margins: float) -> None:
    """Of what is drawn, x as the million parameters of a network: logarithmic, with few numbers."""
    axis.set(xlabel="million parameters", xscale="log")
    axis.margins(margins)
    low, high = axis.get_xlim()
    plain_ticks(axis.xaxis, (1,) if high > 100 * low else (1, 3))


def grid_below(axis: Axes, along: Literal["x", "y"]) -> None:
    axis.grid(axis=along)
    axis.set_axisbelow(True)


def finish_panel(axis: Axes) -> None:
    axis.grid()
    if not axis.lines:
        axis.text(0.5, 0.5, "nothing to show yet", transform=axis.transAxes, ha="center")
        axis.axis("off")


def legend_below(figure: Figure) -> None:
    """One legend for all panels."""
    named: dict[str, Any] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    if named:
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named))
