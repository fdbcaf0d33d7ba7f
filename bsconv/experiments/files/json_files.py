"""JSON from files, whatever they hold: ValueError says what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LARGEST = 64 * 2**20  # bytes; the record of 1,000 epochs has 0.2 MB


def read_text(path: Path) -> str:
    """The text of a file; ValueError where it is not text, or too large for a record."""
    with open(path, "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST // 2**20} MiB")
    return content.decode("utf-8-sig")  # some editors put a mark before it


def parse_json(text: str) -> Any:
    """``json.loads``, with a ValueError for what is nested too deeply as well."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file; OSError where it cannot be read, ValueError for others."""
    return parse_json(read_text(path))
