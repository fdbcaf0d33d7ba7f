"""Files that commands write: whatever is wrong with one is said before anything is computed."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..experiments.plotting import Figure

FIGURE_FILES = (".png", ".pdf", ".svg")


def add_figure(parser: argparse.ArgumentParser, text: str, option: str = "--out") -> None:
    parser.add_argument(option, metavar="FIG.png", help=f"draw {text} (.png, .pdf or .svg)")


def check_files(*, figure: str | None = None, other: str | os.PathLike[str] | None = None) -> None:
    """ValueError or OSError with one line for a ``figure`` or another file that cannot be written.

    None: no such file is wanted.
    """
    from ..experiments.files.checkpoints import check_writable

    if figure is not None:
        if Path(figure).suffix.lower() not in FIGURE_FILES:
            names = ", ".join(FIGURE_FILES)
            raise ValueError(f"a figure's name needs to end in {names}, got {figure}")
        if importlib.util.find_spec("matplotlib") is None:
            raise ValueError("figures need the package matplotlib: pip install 'bsconv[lab]'")
    for path in (figure, other):
        if path is not None:
            check_writable(path)


def write_figure(path: str | os.PathLike[str], draw: Callable[[], Figure]) -> None:
    """The figure that ``draw`` makes, by the suffix as PNG, PDF or SVG; whole or not at all."""
    from ..experiments import plotting
    from ..experiments.files.checkpoints import write_atomically

    write_atomically(path, plotting.rendered(draw, Path(path).suffix.lower()[1:]))
