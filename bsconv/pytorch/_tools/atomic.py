"""Files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import one_line


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file to write, which takes the place of ``path`` once the block is left.

    If the block fails, ``path`` stays as it was. A link stays a link: its target is replaced.
    Pipes and devices such as /dev/stdout are written directly.

    Raises OSError, on one line that names ``path``, where it cannot be written.
    """
    given, target = Path(path), Path(os.path.realpath(path))
    direct = given.exists() and not given.is_file()
    temporary = given if direct else target.with_name(f".{target.name}.tmp")
    try:
        yield temporary
        if not direct:
            os.replace(temporary, target)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or one_line(error)}") from error
    finally:
        if not direct:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
