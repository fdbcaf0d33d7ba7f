"""One JSON document on stdout, for other programs."""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any, Protocol


class Table(Protocol):
    def to_csv(self, path: Path) -> None: ...


def add_json(parser: argparse.ArgumentParser, keys: str) -> None:
    """An option for a document whose keys are ``keys``, in words."""
    text = f"print one JSON document instead: {keys}"
    parser.add_argument("--json", action="store_true", help=text)


def print_json(**entries: Any) -> None:
    print(json.dumps(entries, indent=2))


def rows_of(table: Table) -> list[dict[str, str | float | None]]:
    """The lines that ``to_csv`` writes, by their columns: the first is a name, numbers follow."""
    with tempfile.TemporaryDirectory() as folder:
        table.to_csv(path := Path(folder) / "table.csv")
        with open(path, newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
    return [dict(zip(header, [line[0], *map(_value, line[1:])], strict=True)) for line in lines]


def _value(text: str) -> str | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text or None
