"""Code that leaves a trace when it runs, and the commands that must not run it."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bsconv.__main__ import main

SPRUNG = "sprung"  # the folder that appears


class Trap:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def make_folder(folder: Path) -> Trap:
    return Trap(os.mkdir, str(folder / SPRUNG))


def source(folder: Path) -> str:
    """Of one Python expression."""
    return f"__import__('os').mkdir({str(folder / SPRUNG)!r})"


def bsconv(*arguments: object) -> None:
    """Run a command; ValueError with what it says on stderr where it fails."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main([str(argument) for argument in arguments])
    if code != 0:
        raise ValueError(said.getvalue().removesuffix("\n"))
