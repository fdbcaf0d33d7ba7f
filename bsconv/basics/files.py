"""Files that are written whole or not at all."""

import contextlib
import csv
import errno
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .errors import one_line


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file to write, which takes the place of ``path`` once the block is left well."""
    given, target = Path(path), Path(os.path.realpath(path))  # a link stays a link
    direct = given.exists() and not given.is_file()  # pipes and devices such as /dev/stdout
    temporary = given if direct else target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if not direct:
            _flush(temporary)  # first: readers see the old or the new file, even after a power cut
            os.replace(temporary, target)
    except OSError as error:
        full = "the disk is full" if error.errno == errno.ENOSPC else ""
        reason = full or error.strerror or one_line(error)
        before = "" if direct or not target.exists() else "; what was there before is unharmed"
        raise OSError(f"cannot write {path}: {reason}{before}") from error
    finally:
        if not direct:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not every system can flush a folder
        _flush(target.parent)


def write_csv(
    path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    names: Any = {"encoding": "utf-8", "errors": "surrogateescape"}  # they need not be UTF-8
    with written_whole(path) as whole, open(whole, "w", newline="", **names) as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def project_folder(name: str) -> Path:
    """``NAME/`` of the working directory; for notebooks the one next to their own folder."""
    here = Path.cwd()
    if here.name in ("notebooks", "course") and not (here / name).is_dir():
        here = here.parent
    return here / name


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
