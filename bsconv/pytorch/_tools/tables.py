"""Rows as an aligned text table, as an HTML table and as CSV."""

import csv
import html
import io
import os
from collections.abc import Iterable, Sequence
from itertools import compress, repeat
from typing import ClassVar

from .atomic import written_whole


def write_csv(
    path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """A line of names, then a line per row; OSError with one line if it cannot be written."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with written_whole(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


Row = Sequence[str | int]


def text_table(header: Sequence[str], rows: Sequence[Row]) -> str:
    """Columns aligned by width, numbers to the right and grouped by thousands."""
    cells = [list(header), *(list(map(_text, row)) for row in rows)]
    columns = []
    for cell, is_number in zip(zip(*cells, strict=True), _numeric(header, rows), strict=True):
        width = max(map(len, cell))
        lines = [text.rjust(width) if is_number else text.ljust(width) for text in cell]
        columns.append([lines[0], "-" * width, *lines[1:]])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def html_table(header: Sequence[str], rows: Sequence[Row], caption: str) -> str:
    """The same as a ``<table>``; every text is escaped."""
    aligned = ["right" if is_number else "left" for is_number in _numeric(header, rows)]

    def line(tag: str, values: Row) -> str:
        return "".join(
            f'<{tag} style="text-align: {align}">{html.escape(_text(value))}</{tag}>'
            for value, align in zip(values, aligned, strict=True)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return (
        f"<table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{line('th', header)}</tr></thead><tbody>{body}</tbody></table>"
    )


class Table:
    """Prints as an aligned table with a summary below it, and as an HTML table in Jupyter.

    A subclass has the attribute ``header``, the property ``summary`` and the method
    ``_table_rows``.
    """

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
        header, rows = self._filled()
        return f"{text_table(header, rows)}\n{self.summary}"

    def _repr_html_(self) -> str:
        return html_table(*self._filled(), caption=self.summary)


def _text(value: str | int) -> str:
    return f"{value:,}" if isinstance(value, int) else value


def _numeric(header: Sequence[str], rows: Sequence[Row]) -> list[bool]:
    return [any(isinstance(row[column], int) for row in rows) for column in range(len(header))]
