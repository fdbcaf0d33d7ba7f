"""What commands write: a table or one JSON document on stdout, a CSV file, a figure."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..basics.tables import CsvTable

if TYPE_CHECKING:
    from ..experiments.plotting import Figure

FIGURE_FILES = (".png", ".pdf", ".svg")
ROWS = "rows with the columns of --csv"


def add_csv(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--csv", metavar="FILE", help="write the table to a CSV file as well")


def add_json(parser: argparse._ActionsContainer, keys: str) -> None:
    text = f"print one JSON document instead: {keys}"
    parser.add_argument("--json", action="store_true", help=text)


def add_figure(parser: argparse.ArgumentParser, text: str, option: str = "--out") -> None:
    parser.add_argument(option, metavar="FIG.png", help=f"draw {text} (.png, .pdf or .svg)")


def check_files(figure: str | None, other: str | os.PathLike[str] | None) -> None:
    """ValueError or OSError for a file that is wanted and cannot be written."""
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


def print_json(**entries: Any) -> None:
    print(json.dumps(entries, indent=2), flush=True)


def print_table(
    arguments: argparse.Namespace,
    table: CsvTable,
    draw: Callable[[], Figure] | None = None,
    *,
    text: str | None = None,
    **entries: str,
) -> None:
    """The table, or ``text`` instead, or JSON with its rows; then its CSV file and its figure."""
    with contextlib.suppress(BrokenPipeError):  # as by `... --csv FILE | head`
        if arguments.json:  # printed first, the work of minutes is not lost to a full disk
            print_json(**entries, rows=rows_of(table))
        else:
            print(text or table, flush=True)
    if arguments.csv is not None:
        table.to_csv(arguments.csv)
    if draw is not None and arguments.out is not None:
        write_figure(arguments.out, draw)


def write_figure(path: str | os.PathLike[str], draw: Callable[[], Figure]) -> None:
    """The figure that ``draw`` makes, by the suffix as PNG, PDF or SVG; whole or not at all."""
    from ..experiments import plotting
    from ..experiments.files.checkpoints import write_atomically

    write_atomically(path, plotting.rendered(draw, Path(path).suffix.lower()[1:]))


def rows_of(table: CsvTable) -> list[dict[str, Any]]:
    """What ``to_csv`` writes, by columns; numbers that are rounded there are numbers here."""
    header, rows = table._csv_rows()
    values = ([name, *map(_value, header[1:], rest)] for name, *rest in rows)
    return [dict(zip(header, row, strict=True)) for row in values]


def _value(column: str, cell: Any) -> Any:
    try:  # a folder of data may be called null, or 2024
        return cell if column in ("data", "dataset") else json.loads(cell)
    except (TypeError, ValueError):
        return None if cell == "" else cell
