"""Download CIFAR through torchvision and pack it into the archive that ``_archives`` reads."""

import contextlib
import http.client
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...pytorch._tools.atomic import written_whole
from ...pytorch._tools.errors import one_line

TIMEOUT = 20.0  # seconds of silence after which a connection counts as dead


class DownloadError(Exception):
    """Why a download failed, in one line."""


def download_archive(name: str, archive: Path) -> None:
    """Write ``archive``, whole or not at all; torchvision verifies the checksums of its source."""
    try:
        import torchvision
    except ImportError as error:
        raise DownloadError("torchvision is not installed") from error
    source = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
    try:
        with (
            _folder(archive.parent),
            tempfile.TemporaryDirectory(prefix=f".{name}-", dir=archive.parent) as temporary,
            _socket_timeout(TIMEOUT),
        ):
            train = source[name](temporary, train=True, download=True)
            test = source[name](temporary, train=False)
            with written_whole(archive) as whole, open(whole, "wb") as file:
                np.savez(
                    file,
                    train_images=train.data,
                    train_labels=np.asarray(train.targets, np.int64),
                    test_images=test.data,
                    test_labels=np.asarray(test.targets, np.int64),
                    classes=np.asarray(train.classes, np.str_),
                )
    # a bad checksum is a RuntimeError, a connection that breaks off an HTTPException or EOFError
    except (OSError, RuntimeError, EOFError, http.client.HTTPException) as error:
        raise DownloadError(one_line(error, None)) from error


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Make ``folder``; if the block fails, remove what was made."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # not empty: somebody else uses it by now
            for path in made:
                path.rmdir()
        raise


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
