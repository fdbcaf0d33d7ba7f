"""CIFAR-10 and CIFAR-100 as ``.npz`` archives: found or downloaded, read and checked."""

import http.client
import os
import socket
import tempfile
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from ...basics.errors import one_line
from ...basics.files import project_folder, written_whole
from ..rules import CLASS_COUNTS
from ._image_dataset import DatasetNotFoundError, ImageDataset

LARGEST = 2**30  # bytes of all arrays; CIFAR has 184 MB
TIMEOUT = 20.0  # seconds of silence after which a connection counts as dead
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels", "classes")


def data_folder(root: str | os.PathLike[str] | None = None) -> Path:
    """Where archives are looked for: ``root``, else $BSCONV_DATA, else ``data/``."""
    given = root or os.environ.get("BSCONV_DATA")
    return Path(os.path.expanduser(given)).absolute() if given else project_folder("data")


def find_archive(name: str, root: str | os.PathLike[str] | None) -> Path:
    """The archive of data set ``name``, downloaded first if need be."""
    archive = data_folder(root) / f"{name}.npz"
    if archive.exists():
        return archive
    lacking = f"no {archive.name} in {archive.parent}, and"
    put_it_there = "put it there, or name the folder that holds it (--data or BSCONV_DATA)"
    if os.environ.get("BSCONV_OFFLINE", "0") not in ("", "0"):
        ways = f"allow the download, or {put_it_there}"
        raise DatasetNotFoundError(f"{lacking} BSCONV_OFFLINE is set: {ways}")
    try:
        _download(name, archive)
    # a bad checksum is a RuntimeError, a connection that breaks off an HTTPException or EOFError
    except (OSError, RuntimeError, EOFError, ImportError, http.client.HTTPException) as error:
        reason = one_line(error, None)
        ways = f"try again with a network, or {put_it_there}"
        raise DatasetNotFoundError(f"{lacking} fetching it failed ({reason}): {ways}") from error
    return archive


def _download(name: str, archive: Path) -> None:
    """Fetch with torchvision, which verifies checksums; write ``archive`` whole or not at all."""
    from torchvision import datasets

    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    archive.parent.mkdir(parents=True, exist_ok=True)
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(TIMEOUT)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=archive.parent) as temporary:
            train, test = source(temporary, download=True), source(temporary, train=False)
            arrays: dict[str, Any] = {}
            for split, part in (("train", train), ("test", test)):
                arrays[f"{split}_images"] = part.data
                arrays[f"{split}_labels"] = np.asarray(part.targets, np.int64)
            with written_whole(archive) as whole, open(whole, "wb") as file:
                np.savez(file, **arrays, classes=np.asarray(train.classes, np.str_))
    finally:
        socket.setdefaulttimeout(timeout)


def read_archive(name: str, path: Path) -> ImageDataset:
    """The data set in ``path``; ValueError says what is wrong with it. Runs no code from it."""
    with open(path, "rb") as file:
        try:
            _check_members(file)
            with np.load(file, allow_pickle=False) as archive:
                if missing := [key for key in ARRAYS if key not in archive.files]:
                    raise ValueError(f"it lacks {', '.join(missing)}")
                arrays = {key: archive[key] for key in ARRAYS}
            _check(arrays, CLASS_COUNTS[name])
        except Exception as error:  # a damaged file may raise anything at all
            too_large = "an array in it claims more than the memory holds"
            reason = too_large if isinstance(error, MemoryError) else one_line(error, None)
            damage = f"{path} is not a complete {name} archive: {reason}"
            raise ValueError(f"{damage}; remove it and try again") from error
    tensors: dict[str, Any] = {}
    for split in ("train", "test"):
        images = arrays[f"{split}_images"].transpose(0, 3, 1, 2)
        tensors[f"{split}_images"] = torch.from_numpy(np.ascontiguousarray(images))
        tensors[f"{split}_labels"] = torch.from_numpy(arrays[f"{split}_labels"].astype(np.int64))
    return ImageDataset(name, tuple(arrays["classes"].tolist()), **tensors)


def _check_members(file: BinaryIO) -> None:
    """Refuses a bomb, and a changed bit: a shorter array would be read without its checksum."""
    if not zipfile.is_zipfile(file):
        raise ValueError("it is not an archive of arrays")
    with zipfile.ZipFile(file) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
        if claimed > LARGEST:
            raise ValueError(f"it unpacks to {claimed:,} bytes, more than {LARGEST:,}")
        if damaged := archive.testzip():
            raise ValueError(f"the checksum of {damaged} in it is wrong")
    file.seek(0)


def _check(arrays: dict[str, np.ndarray], class_count: int) -> None:
    def check(key: str, holds: bool, needed: str) -> None:
        if not holds:
            array = arrays[key]
            raise ValueError(f"{key} needs {needed}, got {array.dtype} {list(array.shape)}")

    classes = arrays["classes"]
    named = classes.dtype.kind == "U" and classes.shape == (class_count,)
    check("classes", named, f"{class_count} names")
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        pixels = images.dtype == np.uint8 and images.shape[1:] == (32, 32, 3) and len(images) > 0
        check(f"{split}_images", pixels, "uint8 [N, 32, 32, 3]")
        whole = labels.dtype.kind in "iu" and labels.shape == images.shape[:1]
        check(f"{split}_labels", whole, f"{len(images)} integers")
        if labels.min() < 0 or labels.max() >= class_count:
            got = f"got {labels.min()} to {labels.max()}"
            raise ValueError(f"{split}_labels needs 0 to {class_count - 1}, {got}")
