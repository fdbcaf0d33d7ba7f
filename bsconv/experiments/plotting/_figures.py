"""New figures: known to pyplot, which shows them, or unknown to it, to become a file."""

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ._style import use_style

_SHOWN_BY_PYPLOT = ContextVar("_SHOWN_BY_PYPLOT", default=True)
_ONE_AT_A_TIME = threading.Lock()  # the style is the same for all threads


@contextlib.contextmanager
def _unknown_to_pyplot() -> Iterator[None]:
    """Figures made in this context stay out of what ``plt.show()`` shows.

    JupyterLab moves widgets in a thread of their own. A cell that ends meanwhile shows and closes
    all that pyplot knows, even if it is half drawn.
    """
    token = _SHOWN_BY_PYPLOT.set(False)
    try:
        yield
    finally:
        _SHOWN_BY_PYPLOT.reset(token)


def new_figure(figsize: tuple[float, float] | None = None) -> Figure:
    """Without axes yet; ``figsize`` in inches, by default that of the style."""
    make = plt.figure if _SHOWN_BY_PYPLOT.get() else Figure
    return make(figsize=figsize)


def subplots(
    rows: int = 1, columns: int = 1, *, figsize: tuple[float, float] | None = None, **layout: Any
) -> tuple[Figure, Any]:
    """A new figure and its axes, as from ``plt.subplots``."""
    figure = new_figure(figsize)
    return figure, figure.subplots(rows, columns, **layout)


def rendered(draw: Callable[[], Figure], format: str) -> bytes:
    """What ``draw`` draws, in the style of all figures, as "png", "pdf" or "svg"."""
    content = io.BytesIO()
    with _ONE_AT_A_TIME, mpl.rc_context(), _unknown_to_pyplot():
        use_style()
        draw().savefig(content, format=format)
    return content.getvalue()
