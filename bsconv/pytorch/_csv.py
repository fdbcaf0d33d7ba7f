"""Rows as a CSV file, written whole or not at all."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path


def write_csv(
    path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """A line of names, then a line per row; OSError with one line if it cannot be written."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    _write_whole(Path(path), text.getvalue())


def _write_whole(path: Path, text: str) -> None:
    target = Path(os.path.realpath(path))  # a link stays a link
    try:
        if target.exists() and not target.is_file():  # such as /dev/stdout, or a folder
            target.write_text(text, encoding="utf-8")
            return
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
