"""Rows as an aligned text table and as an HTML table."""

import html
import math
import os
from collections.abc import Sequence
from itertools import accumulate, compress, repeat
from typing import Any, ClassVar

from .files import write_csv

Row = Sequence[str | int]
terminal_width = math.inf  # columns of text; the command line knows it


def text_table(header: Sequence[str], rows: Sequence[Row]) -> str:
    """Columns aligned by width, numbers to the right and grouped by thousands; what is too wide for
    the terminal follows below, again with the first column."""
    lines = [[_text(value) for value in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    ends = accumulate(width + 2 for width in widths)
    fit = max(2, sum(end - 2 <= terminal_width for end in ends))
    if fit < len(header):
        above = text_table(header[:fit], [row[:fit] for row in rows])
        below = text_table([header[0], *header[fit:]], [[row[0], *row[fit:]] for row in rows])
        return f"{above}\n\n{below}"
    lines.insert(1, ["-" * width for width in widths])
    signs = [">" if is_number else "<" for is_number in _numeric(header, rows)]
    formats = [f"{sign}{width}" for sign, width in zip(signs, widths, strict=True)]
    return "\n".join("  ".join(map(format, line, formats)).rstrip() for line in lines)


def html_table(header: Sequence[str], rows: Sequence[Row], caption: str) -> str:
    """The same as a ``<table>``; every text is escaped."""
    sides = ["right" if is_number else "left" for is_number in _numeric(header, rows)]

    def line(tag: str, values: Row) -> str:
        texts = zip(sides, map(html.escape, map(_text, values)), strict=True)
        return "".join(f'<{tag} style="text-align: {side}">{text}</{tag}>' for side, text in texts)

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    head = f"<thead><tr>{line('th', header)}</tr></thead>"
    title = f"<caption>{html.escape(caption)}</caption>"
    return f"<table>{title}{head}<tbody>{body}</tbody></table>"


class Table:
    """Prints as an aligned table with a summary below it, and as an HTML table in Jupyter."""

    header: ClassVar[Sequence[str]]

    @property
    def summary(self) -> str:
        """One line."""
        raise NotImplementedError

    def _table_rows(self) -> Sequence[Row]:
        raise NotImplementedError

    def _filled(self) -> tuple[list[str], list[Row]]:
        """Header and rows without the columns in which all entries are empty."""
        rows = self._table_rows()
        filled = [any(v != "" for v in column) for column in zip(*rows, strict=True)]
        header = list(compress(self.header, filled or repeat(True)))
        return header, [list(compress(row, filled)) for row in rows]

    def __str__(self) -> str:
        return f"{text_table(*self._filled())}\n{self.summary}"

    def _repr_html_(self) -> str:
        return html_table(*self._filled(), caption=self.summary)


class CsvTable:
    """Rows in full, for a CSV file and for JSON: the first column is a name, numbers follow."""

    def _csv_rows(self) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
        """The names of the columns, and the rows."""
        raise NotImplementedError

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes the rows as a CSV file, all or nothing; OSError if it cannot be written."""
        write_csv(path, *self._csv_rows())


def _text(value: str | int) -> str:
    return f"{value:,}" if isinstance(value, int) else value


def _numeric(header: Sequence[str], rows: Sequence[Row]) -> list[bool]:
    return [any(isinstance(row[column], int) for row in rows) for column in range(len(header))]
