"""JSON from files, read with suspicion: ValueError says what is wrong, whatever is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["parse_json", "read_json", "read_text"]

LARGEST = 64 * 2**20  # bytes; the record of 1,000 epochs has 0.2 MB


def read_text(path: Path) -> str:
    """The text of a file; ValueError where it is none, or too large for what is kept here."""
    with open(path, "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST // 2**20} MiB")
    return content.decode("utf-8")


def parse_json(text: str) -> Any:
    """``json.loads``; what is nested too deeply is a ValueError as well."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json(path: Path) -> Any:
    """What a JSON file says; OSError where it cannot be read, ValueError where it is none."""
    return parse_json(read_text(path))
