"""JSON from files, whatever they hold: ValueError says what is wrong with them."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...basics.errors import one_line

LARGEST = 64 * 2**20  # bytes; the record of 1,000 epochs has 0.2 MB


def read_text(path: Path) -> str:
    """The text of a file; ValueError where it is not text, or too large for a record."""
    with open(path, "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST // 2**20} MiB")
    return content.decode("utf-8-sig")  # some editors put a mark before it


def read_json(path: Path, format: str | None = None) -> Any:
    """The content of a JSON file, read within :func:`holding`.

    With a ``format``, an object whose entry of that name says it; the entry is taken out.
    """
    values = json.loads(read_text(path))
    if format is not None and (found := values.pop("format")) != format:
        raise ValueError(f"format needs to be {format!r}, got {found!r}")
    return values


@contextlib.contextmanager
def holding(what: str, path: Path | str) -> Iterator[None]:
    """ValueError with one line where ``path``, as it is read in here, turns out not to hold it."""
    try:
        yield
    except Exception as error:  # a damaged file may raise anything at all
        if isinstance(error, MemoryError) or getattr(error, "filename", None):
            raise  # it could not be read
        lacking = "it lacks " if isinstance(error, KeyError) else ""
        raise ValueError(f"{path} holds no {what}: {lacking}{one_line(error)}") from error
