"""Data sets as tensors: CIFAR-10, CIFAR-100, a synthetic set, or a folder of images by class."""

import os
from pathlib import Path

from ...basics.errors import meant
from ..rules import DATASETS, FOLDER_SIZE
from ._archives import find_archive, read_archive
from ._folders import read_folder
from ._image_dataset import DatasetNotFoundError, ImageDataset
from ._synthetic import synthetic_dataset


def load_dataset(
    name: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    image_size: int | None = None,
    resize: str | None = None,
    split: float | None = None,
    labelled: bool = True,
) -> ImageDataset:
    """The whole data set ``name`` on the CPU; of a folder, more than 1 GiB stays on the disk.

    ``"cifar10"`` and ``"cifar100"`` are archives in :func:`data_folder`, downloaded if need be
    unless BSCONV_OFFLINE is set; ``"synthetic"`` is made on the spot. Any other
    ``name`` is the path of a folder: ``NAME/train/CLASS`` and ``NAME/test/CLASS`` (or ``val``,
    ``valid``), or ``NAME/CLASS``, of which ``split`` (default 0.2) of each class becomes the test
    set, always the same; unless ``labelled``, also of images alone. Images become RGB of
    ``image_size`` squared (default 32); ``resize`` says how, see ``read_image``.
    """
    name = os.fspath(name)
    if name in DATASETS:
        for option, value in (("image_size", image_size), ("resize", resize), ("split", split)):
            if value not in (None, FOLDER_SIZE):
                rule = f"{option} is for folders of images: {name} is 32 x 32"
                raise ValueError(f"{rule}, got {option}={value!r}")
        if name == "synthetic":
            return synthetic_dataset()
        return read_archive(name, find_archive(name, root))
    folder = Path(os.path.expanduser(name))
    if name and folder.is_dir():
        size = FOLDER_SIZE if image_size is None else image_size
        return read_folder(folder, size, resize or "squash", split, labelled)
    if name and folder.exists():
        raise ValueError(f"{folder} is a file; a data set is a folder of images by class")
    if os.sep in name or "/" in name or name.startswith((".", "~")):
        raise DatasetNotFoundError(f"the folder {folder} does not exist")
    near = meant(name, DATASETS, f", there are {', '.join(DATASETS)}")
    raise ValueError(f"unknown data set {name!r}{near} (or give the path of a folder of images)")
