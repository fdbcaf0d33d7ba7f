"""The form of every data set: whole sets of uint8 images as tensors, or as files on the disk."""

import dataclasses
import zlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._image_files import ImageFiles

_TENSORS = ("train_images", "train_labels", "test_images", "test_labels")


class DatasetNotFoundError(FileNotFoundError):
    """A data set that is neither on the disk nor available from the network."""


@dataclass(frozen=True, eq=False)  # eq: tensors have no single truth value to compare by
class ImageDataset:
    """A training and a test set: images uint8 [N, 3, H, W], labels int64 [N].

    Images that memory should not hold are an :class:`ImageFiles`, which is indexed as the tensor.
    """

    name: str
    classes: tuple[str, ...]
    train_images: Tensor | ImageFiles
    train_labels: Tensor
    test_images: Tensor | ImageFiles
    test_labels: Tensor
    about: str = ""  # how the images came out of their files

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_size(self) -> tuple[int, ...]:
        """Height and width."""
        return tuple(self.train_images.shape[-2:])

    @property
    def checksum(self) -> int:
        """Of the whole content: other images, labels or classes give another number."""
        total = zlib.crc32("\n".join(self.classes).encode(errors="surrogatepass"))
        for tensor in (getattr(self, name) for name in _TENSORS):
            total = zlib.crc32(str(tuple(tensor.shape)).encode(), total)
            if isinstance(tensor, ImageFiles):
                total = zlib.crc32(str(tensor.checksum).encode(), total)
            else:
                total = zlib.crc32(tensor.cpu().contiguous().numpy(), total)
        return total

    def to(self, device: torch.device | str) -> "ImageDataset":
        """The same set on ``device``; tensors that are there already are shared, not copied."""
        there: dict[str, Any] = {name: getattr(self, name).to(device) for name in _TENSORS}
        return dataclasses.replace(self, **there)

    def __str__(self) -> str:
        train, test = len(self.train_images), len(self.test_images)
        counts = f"{train} training and {test} test images in {self.num_classes} classes"
        return f"{self.name}: {counts}" + (f", {self.about}" if self.about else "")

    def limited(self, train: int | None = None, test: int | None = None) -> "ImageDataset":
        """The first ``train`` and ``test`` images; ``None``, or more than there are, takes all."""
        first: dict[str, Any] = {}
        for split, limit in (("train", train), ("test", test)):
            for name in (f"{split}_images", f"{split}_labels"):
                part = getattr(self, name)
                count = min(limit or len(part), len(part))
                first[name], _ = part.split([count, len(part) - count])
        return dataclasses.replace(self, **first)
