"""The form of every data set: whole sets of uint8 images as tensors."""

import dataclasses
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

_TENSORS = ("train_images", "train_labels", "test_images", "test_labels")


class DatasetNotFoundError(FileNotFoundError):
    """A data set that is neither on the disk nor available from the network."""


@dataclass(frozen=True, eq=False)  # eq: tensors have no single truth value to compare by
class ImageDataset:
    """A training and a test set: images uint8 [N, 3, H, W], labels int64 [N]."""

    name: str
    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.train_images.shape[-2:]
        return height, width

    @property
    def checksum(self) -> int:
        """Of the whole content: other images, labels or classes give another number."""
        total = zlib.crc32("\n".join(self.classes).encode(errors="surrogatepass"))
        for tensor in (getattr(self, name) for name in _TENSORS):
            total = zlib.crc32(str(tuple(tensor.shape)).encode(), total)
            total = zlib.crc32(tensor.cpu().contiguous().numpy().data, total)
        return total

    def to(self, device: torch.device | str) -> "ImageDataset":
        """The same set on ``device``; tensors that are there already are shared, not copied."""
        there = {name: getattr(self, name).to(device) for name in _TENSORS}
        return dataclasses.replace(self, **there)

    def limited(self, train: int | None = None, test: int | None = None) -> "ImageDataset":
        """The first ``train`` and ``test`` images; ``None``, or more than there are, takes all."""
        for argument, limit in (("train", train), ("test", test)):
            if limit is not None and limit < 1:
                raise ValueError(f"limited needs {argument} >= 1 images, got {argument}={limit!r}")
        limits = dict(zip(_TENSORS, (train, train, test, test), strict=True))
        first = {name: getattr(self, name)[:limit] for name, limit in limits.items()}
        return dataclasses.replace(self, **first)
