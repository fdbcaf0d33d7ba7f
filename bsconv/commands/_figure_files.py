"""Figures as files: whatever is wrong with one is said before what it shows is computed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..experiments.plotting import Figure

FIGURE_FILES = (".png", ".pdf", ".svg")


def check_figure_file(path: str | os.PathLike[str]) -> None:
    """ValueError or OSError with one line where :func:`write_figure` could not write ``path``."""
    from ..experiments.files.checkpoints import check_writable

    if Path(path).suffix.lower() not in FIGURE_FILES:
        raise ValueError(f"a figure's name needs to end in {', '.join(FIGURE_FILES)}, got {path}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("figures need the package matplotlib: pip install 'bsconv[notebooks]'")
    check_writable(Path(os.path.realpath(path)))


def write_figure(path: str | os.PathLike[str], draw: Callable[[], Figure]) -> None:
    """The figure that ``draw`` makes, by the suffix as PNG, PDF or SVG; whole or not at all."""
    from ..experiments import plotting
    from ..pytorch._tools.atomic import written_whole

    content = plotting.rendered(draw, Path(path).suffix.lower()[1:])
    with written_whole(path) as temporary:
        temporary.write_bytes(content)
