"""A figure as the content of a file."""

import io
from collections.abc import Callable

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ._style import use_style


def rendered(draw: Callable[[], Figure], format: str) -> bytes:
    """What ``draw`` draws, in the style of all figures, as "png", "pdf" or "svg"."""
    content = io.BytesIO()
    with mpl.rc_context():
        use_style()
        figure = draw()
        figure.savefig(content, format=format)
        plt.close(figure)
    return content.getvalue()
