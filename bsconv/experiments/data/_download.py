"""Download CIFAR through torchvision and pack it into the archive that ``_archives`` reads."""

import http.client
import socket
import tempfile
from pathlib import Path

import numpy as np

from ...pytorch._tools.atomic import written_whole

TIMEOUT = 20.0  # seconds of silence after which a connection counts as dead
# a bad checksum is a RuntimeError, a connection that breaks off an HTTPException or EOFError
FAILURES = (OSError, RuntimeError, EOFError, http.client.HTTPException)


def download_archive(name: str, archive: Path) -> None:
    """Write ``archive``, whole or not at all; torchvision verifies the checksums of its source.

    One of FAILURES where that fails.
    """
    try:
        import torchvision
    except ImportError as error:
        raise RuntimeError("torchvision is not installed") from error
    source = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
    timeout = socket.getdefaulttimeout()
    archive.parent.mkdir(parents=True, exist_ok=True)
    try:
        socket.setdefaulttimeout(TIMEOUT)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=archive.parent) as temporary:
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
    finally:
        socket.setdefaulttimeout(timeout)
