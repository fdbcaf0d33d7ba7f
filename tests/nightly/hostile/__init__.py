"""Files made to run code, to fill the memory or to lead elsewhere, and how the package reads them.

``CASES`` maps a name to a function that writes such a file into a folder and has it read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import bombs, links, pickles
from .traps import SPRUNG

CASES: dict[str, Callable[[Path], object]] = {
    **pickles.CASES,
    **bombs.CASES,
    **links.CASES,
}


def refusal(name: str, folder: Path) -> str:
    """With what line the case is refused; AssertionError where it is not, or where code ran."""
    before = set(folder.parent.iterdir())
    try:
        CASES[name](folder)
    except (ValueError, OSError) as error:
        line = str(error)
    else:
        raise AssertionError(f"{name} was read")
    if (folder / SPRUNG).exists() or set(folder.parent.iterdir()) != before:
        raise AssertionError(f"{name} has run code")
    if not line or "\n" in line:
        raise AssertionError(f"{name} is refused in other than one line: {line}")
    return line
