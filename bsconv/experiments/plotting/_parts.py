"""What several figures need: arrays that are checked, axes without ticks, one legend for all."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

_PALE, _STRONG = 0.1, 0.6  # of a scale: no dot on smaller values, a white one on larger ones


def array_of(name: str, values: ArrayLike, dimensions: int) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=float)
    if array.ndim != dimensions or not array.size:
        raise ValueError(f"{name} needs {dimensions} dimensions, got shape {array.shape}")
    return array


def arrays_of(
    name: str, values: Mapping[str, ArrayLike], dimensions: int, what: str
) -> dict[str, NDArray[np.float64]]:
    if not values:
        raise ValueError(f"{name} needs at least one {what}, got none")
    return {key: array_of(f"{name}[{key!r}]", value, dimensions) for key, value in values.items()}


def mark_negatives(
    axis: Axes, values: Iterable[tuple[float, float, float]], limit: float, side: float = 1
) -> None:
    """Of values, each ``(x, y, value)`` in a square of that side, a dot on each that is negative.

    It tells signs apart where colours are not seen, and stands out on a scale up to ``limit``.
    """
    negative = [(x, y, -value / limit) for x, y, value in values if value < -_PALE * limit]
    if not negative:
        return
    dots = [Rectangle((x - side / 6, y - side / 6), side / 3, side / 3) for x, y, _ in negative]
    colours = ["white" if strength > _STRONG else "#444444" for *_, strength in negative]
    axis.add_collection(PatchCollection(dots, facecolors=colours, linewidths=0))


def places(picture: NDArray[np.float64]) -> list[tuple[float, float, float]]:
    """Where ``imshow`` puts the values of a picture: ``(x, y, value)`` of each."""
    return [(column, row, value) for (row, column), value in np.ndenumerate(picture)]


def plain_ticks(axis: Axis) -> None:
    """A logarithmic axis with 0.1, 0.2, 0.5, 1, ... written out."""
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def size_axis(axis: Axes, margins: float) -> None:
    """Of what is drawn, x as the size of a network: logarithmic, with few numbers written out."""
    axis.set_xscale("log")
    axis.margins(margins)
    low, high = axis.get_xlim()
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1,) if high > 100 * low else (1, 3)))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())


def grid_below(axis: Axes, along: Literal["x", "y"]) -> None:
    axis.grid(axis=along)
    axis.set_axisbelow(True)


def finish_panel(axis: Axes) -> None:
    axis.title.set_fontsize(9)
    axis.grid()
    if not axis.lines:
        axis.text(0.5, 0.5, "nothing to show yet", transform=axis.transAxes, ha="center")
        axis.axis("off")


def legend_below(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend for all panels."""
    named: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    if named:
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named))
