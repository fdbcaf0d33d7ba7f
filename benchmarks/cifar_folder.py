"""A data set as the folder that torchvision's CIFAR10 reads."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from bsconv.experiments.data import ImageDataset


def write_cifar10_folder(folder: Path, dataset: ImageDataset) -> None:
    """``folder/cifar-10-batches-py`` with the images of ``dataset``, 32 x 32 and of ten classes.

    The pixels are those of the original archive, the bytes of the files are not: whoever reads it
    with torchvision has to do without its checksums.
    """
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True)
    parts = zip(
        dataset.train_images[:].tensor_split(5), dataset.train_labels.tensor_split(5), strict=True
    )
    for number, (images, labels) in enumerate(parts, start=1):
        _write_batch(place / f"data_batch_{number}", images, labels)
    _write_batch(place / "test_batch", dataset.test_images[:], dataset.test_labels)
    with open(place / "batches.meta", "wb") as file:
        pickle.dump({"label_names": list(dataset.classes)}, file)


def _write_batch(path: Path, images: Tensor, labels: Tensor) -> None:
    with open(path, "wb") as file:
        pickle.dump({"data": images.flatten(1).numpy(), "labels": labels.tolist()}, file)
