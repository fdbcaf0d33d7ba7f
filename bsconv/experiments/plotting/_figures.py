"""What all figures share: their style, their panels, and what these have in common."""

import io
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from itertools import cycle
from typing import Any, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import Cycler, cycler
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

Look = dict[str, Any]  # options of what draws
Series = Mapping[str, ArrayLike]
Size = tuple[float, float]

# Okabe & Ito (2008): told apart with any colour vision. Their yellow is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# never colour alone: a curve keeps its dash and marker in print and in greyscale
_LOOKS = cycler(color=COLOURS, linestyle=("-", "--", "-.", ":", "-", "--", "-."), marker="os^DvPX")
WIDTH, HEIGHT = 7.0, 3.5  # inches, the most a figure may have

_SHOWN_BY_PYPLOT = ContextVar("_SHOWN_BY_PYPLOT", default=True)
_ONE_AT_A_TIME = threading.Lock()  # the style is the same for all threads


def use_style() -> None:
    """Set how all figures of a notebook look: 7 x 3.5 inches at most, on white, 100 dpi."""
    mpl.rc("figure", figsize=(WIDTH, HEIGHT), dpi=100, facecolor="white")
    mpl.rc("figure.constrained_layout", use=True)
    mpl.rc("savefig", dpi=100, facecolor="white")
    mpl.rc("axes", facecolor="white", prop_cycle=_LOOKS)
    mpl.rc("axes.spines", top=False, right=False)
    mpl.rc("grid", color="#DDDDDD")
    mpl.rc("lines", linewidth=1.5, markersize=4)
    mpl.rc("legend", frameon=False, handlelength=3.5)  # room for a dash next to the marker
    mpl.rc("font", size=9)
    mpl.rc("image", cmap="cividis")


def looks_of(labels: Iterable[str], looks: Cycler = _LOOKS) -> dict[str, Look]:
    """Colour, dash and marker for each label, in the order in which they first come."""
    return dict(zip(dict.fromkeys(labels), cycle(looks), strict=False))


def new_figure(size: Size | None = None, title: str | None = None) -> Figure:
    """Without axes yet; ``size`` in inches, by default that of the style."""
    figure = (plt.figure if _SHOWN_BY_PYPLOT.get() else Figure)(figsize=size)
    if title is not None:
        figure.suptitle(title)
    return figure


def one_panel(labels: Mapping[str, str], size: Size | None = None) -> tuple[Figure, Axes]:
    """A new figure with one panel that carries these labels: title, xlabel, ylabel."""
    figure = new_figure(size)
    axis = figure.subplots()
    axis.set(**labels)
    return figure, axis


def panels_of(
    names: Collection[str], title: str, ylabel: str = "", large: bool = False, sharey: bool = False
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with a panel for each name, from left to right; ``ylabel`` stands at the first."""
    figure = new_figure(title=title)
    row = figure.subplots(1, len(names), sharey=sharey, squeeze=False)[0]
    for name, axis in zip(names, row, strict=True):
        axis.set_title(name, fontsize="large" if large else 9)
    row[0].set_ylabel(ylabel)
    return figure, dict(zip(names, row, strict=True))


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


def logarithmic(panel: Axes, names: str, steps: Sequence[float] = (1, 2, 5)) -> None:
    """Its axes "x", "y" or "xy", with 0.1, 0.2, 0.5, 1, ... written out."""
    panel.set(**{f"{name}scale": "log" for name in names})
    for name in names:
        axis: Axis = getattr(panel, f"{name}axis")
        axis.set_major_locator(ticker.LogLocator(subs=steps))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(ticker.NullFormatter())


def in_percent(axis: Axis) -> None:
    axis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))


def grid_below(axis: Axes, along: Literal["x", "y"]) -> None:
    axis.grid(axis=along)
    axis.set_axisbelow(True)


def finish_panel(axis: Axes) -> None:
    axis.grid()
    if not axis.lines:
        axis.text(0.5, 0.5, "nothing to show yet", transform=axis.transAxes, ha="center")
        axis.axis("off")


def with_legend(figure: Figure, columns: int = 0) -> Figure:
    """The figure with one legend below for all panels, in one row unless ``columns`` are given."""
    named: dict[str, Any] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    if named:
        ncols = columns or len(named)
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=ncols)
    return figure
