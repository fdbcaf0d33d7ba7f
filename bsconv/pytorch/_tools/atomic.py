"""Files that are written whole or not at all."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from .errors import one_line


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file to write, which takes the place of ``path`` once the block is left.

    It is flushed to the disk first, so readers see the old or the new file, even after a power cut.
    If the block fails, ``path`` stays as it was. A link stays a link: its target is replaced.
    Pipes and devices such as /dev/stdout are written directly.

    Raises OSError, on one line that names ``path``, where it cannot be written.
    """
    given, target = Path(path), Path(os.path.realpath(path))
    direct = given.exists() and not given.is_file()
    temporary = given if direct else temporary_path(target)
    try:
        yield temporary
        if not direct:
            _flush(temporary)
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


def temporary_path(path: Path) -> Path:
    """A new name in the folder of ``path``: two that write there at once do not mix."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
