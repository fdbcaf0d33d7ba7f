"""CIFAR-10 and CIFAR-100 as ``.npz`` archives: where they lie, and how one is read and checked."""

import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from ...pytorch._tools.errors import one_line
from ._download import FAILURES, download_archive
from ._image_dataset import DatasetNotFoundError, ImageDataset

CLASS_COUNTS = {"cifar10": 10, "cifar100": 100}
LARGEST = 2**30  # bytes of all arrays; CIFAR has 184 MB
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels", "classes")


def data_folder(root: str | os.PathLike[str] | None = None) -> Path:
    """Where archives are looked for: ``root``, else $BSCONV_DATA, else ``data/``.

    ``data/`` is that of the working directory; notebooks run in ``notebooks/`` and find the one
    next to it.
    """
    given = root or os.environ.get("BSCONV_DATA")
    if given:
        return Path(given).expanduser().absolute()
    here = Path.cwd()
    if here.name in ("notebooks", "course") and not (here / "data").is_dir():
        here = here.parent
    return here / "data"


def find_archive(name: str, root: str | os.PathLike[str] | None, *, download: bool) -> Path:
    """The archive of data set ``name``, downloaded first if need be."""
    archive = data_folder(root) / f"{name}.npz"
    if archive.exists():
        return archive
    lacking = f"no {archive.name} in {archive.parent}, and"
    put_it_there = "put it there, or name the folder that holds it (--data or BSCONV_DATA)"
    offline = os.environ.get("BSCONV_OFFLINE", "0") not in ("", "0")
    if offline or not download:
        forbidden = "BSCONV_OFFLINE is set" if offline else "downloading is switched off"
        raise DatasetNotFoundError(f"{lacking} {forbidden}: allow the download, or {put_it_there}")
    try:
        download_archive(name, archive)
    except FAILURES as error:
        reason = one_line(error, None)
        raise DatasetNotFoundError(
            f"{lacking} fetching it failed ({reason}): try again with a network, or {put_it_there}"
        ) from error
    return archive


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
            raise ValueError(
                f"{path} is not a whole {name} archive: {reason}; remove it and try again"
            ) from error
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        arrays[f"{split}_images"] = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        arrays[f"{split}_labels"] = labels.astype(np.int64)
    classes = tuple(arrays.pop("classes").tolist())
    tensors: dict[str, Any] = {key: torch.from_numpy(array) for key, array in arrays.items()}
    return ImageDataset(name, classes, **tensors)


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
    classes = arrays["classes"]
    if classes.dtype.kind != "U" or classes.shape != (class_count,):
        raise ValueError(
            f"classes needs {class_count} names, got {classes.dtype} {list(classes.shape)}"
        )
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or not len(images):
            raise ValueError(
                f"{split}_images needs uint8 [N, 32, 32, 3], "
                f"got {images.dtype} {list(images.shape)}"
            )
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{split}_labels needs {len(images)} integers, "
                f"got {labels.dtype} {list(labels.shape)}"
            )
        if labels.min() < 0 or labels.max() >= class_count:
            raise ValueError(
                f"{split}_labels needs 0 to {class_count - 1}, got {labels.min()} to {labels.max()}"
            )
