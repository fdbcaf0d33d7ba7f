"""What all figures share: their style, their panels, and what these have in common."""

import io
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from contextvars import ContextVar
from itertools import cycle
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

# Okabe & Ito (2008): told apart with any colour vision. Their yellow is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# never colour alone: a curve keeps its dash and marker in print and in greyscale
DASHES = ("-", "--", "-.", ":", "-", "--", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "////", "....", "xxxx", "----", "\\\\\\\\", "++++")
WIDTH, HEIGHT = 7.0, 3.5  # inches, the most a figure may have
_PALE, _STRONG = 0.1, 0.6  # of a scale: no dot on smaller values, a white one on larger ones

_SHOWN_BY_PYPLOT = ContextVar("_SHOWN_BY_PYPLOT", default=True)
_ONE_AT_A_TIME = threading.Lock()  # the style is the same for all threads


def use_style() -> None:
    """Set how all figures of a notebook look: 7 x 3.5 inches at most, on white, 100 dpi."""
    mpl.rcParams.update(
        {
            "figure.figsize": (WIDTH, HEIGHT),
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "savefig.dpi": 100,
            "savefig.facecolor": "white",
            "axes.facecolor": "white",
            "axes.prop_cycle": (
                cycler(color=COLOURS) + cycler(linestyle=DASHES) + cycler(marker=MARKERS)
            ),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": "#DDDDDD",
            "lines.linewidth": 1.5,
            "lines.markersize": 4,
            "legend.frameon": False,
            "legend.handlelength": 3.5,  # room for a dash next to the marker
            "font.size": 9,
            "image.cmap": "cividis",
        }
    )


def looks_of(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, dash and marker for each label, in the order in which they first come."""
    styles = cycle(zip(COLOURS, DASHES, MARKERS, strict=True))
    return {
        label: {"color": colour, "linestyle": dash, "marker": marker}
        for label, (colour, dash, marker) in zip(dict.fromkeys(labels), styles, strict=False)
    }


def new_figure(figsize: tuple[float, float] | None = None) -> Figure:
    """Without axes yet; ``figsize`` in inches, by default that of the style."""
    make = plt.figure if _SHOWN_BY_PYPLOT.get() else Figure
    return make(figsize=figsize)


def one_panel(**labels: str) -> tuple[Figure, Axes]:
    """A new figure with one panel that carries these labels: title, xlabel, ylabel."""
    figure = new_figure()
    axis = figure.subplots()
    axis.set(**labels)
    return figure, axis


def panels_of(
    names: Collection[str],
    title: str = "",
    *,
    figsize: tuple[float, float] | None = None,
    fontsize: float | str = "large",
    sharey: bool = False,
) -> tuple[Figure, dict[str, Axes]]:
    """A new figure with ``title``, and in it a panel for each name, from left to right."""
    figure = new_figure(figsize)
    row = figure.subplots(1, len(names), sharey=sharey, squeeze=False)[0]
    axes = dict(zip(names, row, strict=True))
    for name, axis in axes.items():
        axis.set_title(name, fontsize=fontsize)
    figure.suptitle(title)
    return figure, axes


def rendered(draw: Callable[[], Figure], format: str) -> bytes:
    """What ``draw`` draws, in the style of all figures, as "png", "pdf" or "svg".

    Pyplot does not get to know the figure. JupyterLab moves widgets in a thread of their own, and a
    cell that ends meanwhile shows and closes all that pyplot knows, even if it is half drawn.
    """
    content = io.BytesIO()
    with _ONE_AT_A_TIME, mpl.rc_context():
        use_style()
        token = _SHOWN_BY_PYPLOT.set(False)
        try:
            draw().savefig(content, format=format)
        finally:
            _SHOWN_BY_PYPLOT.reset(token)
    return content.getvalue()


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


def legend_below(figure: Figure, columns: int = 0) -> None:
    """One legend for all panels, in one row unless ``columns`` are given."""
    named: dict[str, Any] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    if named:
        figure.legend(
            named.values(), named.keys(), loc="outside lower center", ncols=columns or len(named)
        )
