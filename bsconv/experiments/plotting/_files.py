"""A figure as the content of a file."""

import io
import threading
from collections.abc import Callable

import matplotlib as mpl
from matplotlib.figure import Figure

from ._figures import unknown_to_pyplot
from ._style import use_style

_ONE_AT_A_TIME = threading.Lock()  # the style is the same for all threads


def rendered(draw: Callable[[], Figure], format: str) -> bytes:
    """What ``draw`` draws, in the style of all figures, as "png", "pdf" or "svg"."""
    content = io.BytesIO()
    with _ONE_AT_A_TIME, mpl.rc_context(), unknown_to_pyplot():
        use_style()
        draw().savefig(content, format=format)
    return content.getvalue()
