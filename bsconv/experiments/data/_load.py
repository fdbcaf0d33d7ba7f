"""Data sets as tensors: CIFAR-10, CIFAR-100, a synthetic set, or a folder of images by class."""

import difflib
import os
from pathlib import Path

from ._archives import CLASS_COUNTS, find_archive, read_archive
from ._folders import read_folder
from ._image_dataset import DatasetNotFoundError, ImageDataset
from ._synthetic import synthetic_dataset

DATASETS = (*CLASS_COUNTS, "synthetic")


def load_dataset(
    name: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    image_size: int = 32,
    download: bool = True,
) -> ImageDataset:
    """The whole data set ``name`` on the CPU.

    ``"cifar10"`` and ``"cifar100"`` are read from ``cifar10.npz`` and ``cifar100.npz`` in ``root``,
    else in $BSCONV_DATA, else in ``data/``. A missing archive is downloaded and stays there, unless
    ``download`` is false or BSCONV_OFFLINE=1. ``"synthetic"`` is made on the spot, always the same.

    Any other ``name`` is the path of a folder: ``NAME/train/CLASS/*.png`` and
    ``NAME/test/CLASS/*.png``, or ``NAME/CLASS/*.png``, of which a fixed fifth of each class becomes
    the test set. PNG and JPEG images of any size and mode become RGB of ``image_size`` squared.
    """
    name = os.fspath(name)
    if name in DATASETS:
        if image_size != 32:
            raise ValueError(
                f"image_size is for folders of images: {name} is 32 x 32, got {image_size=}"
            )
        if name == "synthetic":
            return synthetic_dataset()
        return read_archive(name, find_archive(name, root, download=download))
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return read_folder(folder, image_size)
    if name and folder.exists():
        raise ValueError(f"{folder} is a file; a data set is a folder of images by class")
    if os.sep in name or "/" in name or name.startswith((".", "~")):
        raise DatasetNotFoundError(f"the folder {folder} does not exist")
    nearest = difflib.get_close_matches(name, DATASETS) or DATASETS
    raise ValueError(
        f"unknown data set {name!r}: did you mean {', '.join(nearest)}? "
        "(or the path of a folder of images by class)"
    )
