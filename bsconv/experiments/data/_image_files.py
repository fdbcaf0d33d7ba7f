"""One image of a file, and many of a folder that memory does not hold, decoded when needed."""

from __future__ import annotations

import functools
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from ...pytorch._tools.errors import one_line

# opened by other programs (Ghostscript), only on Windows, or named but never decoded
NOT_READ = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
WORKERS = 4  # processes that decode, at most


@functools.cache
def formats() -> tuple[str, ...]:
    """All that Pillow decodes by itself."""
    Image.init()
    return tuple(sorted(Image.OPEN.keys() - NOT_READ))


@functools.cache
def suffixes() -> set[str]:
    names = Image.registered_extensions()
    return {suffix for suffix in names if names[suffix] in (*formats(), "MPO")}


def read_image(file: Path, size: int, resize: str = "squash") -> Tensor:
    """uint8 [3, ``size``, ``size``] of any image; ValueError where there is none to be had.

    ``resize`` is "squash", whatever the proportions; "shorter", the middle of the image whose
    shorter side has become ``size``; or a number of pixels in place of ``size`` there.
    """
    if not file.is_file():
        raise ValueError(f"{file} is not a readable image: it is not a regular file")
    try:
        with warnings.catch_warnings():
            # images of absurd size are an error from the limit on at which Pillow begins to warn
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=formats()) as opened:
                return fitted(opened, size, resize)
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and more
        raise ValueError(f"{file} is not a readable image: {one_line(error, None)}") from error


def fitted(image: Image.Image, size: int, resize: str = "squash") -> Tensor:
    """The same of an image that is open already."""
    image = _resized(_rgb(ImageOps.exif_transpose(image)), size, resize)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bit grey, which convert would clip at 255
        wide = np.asarray(image).astype(np.float64)
        image = Image.fromarray((wide / 257).round().clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, which have no white")
    if image.mode == "P":  # RGBA in between: a palette may carry its transparency in bytes
        image = image.convert("RGBA")
    return image.convert("RGB")


def _resized(image: Image.Image, size: int, resize: str) -> Image.Image:
    """Pillow widens the filter when it shrinks, so this is antialiased."""
    if resize == "squash":
        return image.resize((size, size), Image.Resampling.BILINEAR)
    shorter, short = size if resize == "shorter" else int(resize), min(image.size)
    width, height = (int(shorter * side / short) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + size, top + size))


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Stands for the uint8 tensor [N, 3, ``size``, ``size``] of these files; an index reads some.

    :func:`batches_of` reads many of them, by processes of their own.
    """

    files: tuple[Path, ...]
    size: int
    resize: str

    device = torch.device("cpu")
    dtype = torch.uint8

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), 3, self.size, self.size))

    @property
    def checksum(self) -> int:
        """Of the content of the files and what is made of them."""
        total = zlib.crc32(f"{self.size} {self.resize}".encode())
        for file in self.files:
            total = zlib.crc32(file.read_bytes(), total)
        return total

    def read(self) -> Tensor:
        """All of them."""
        images = torch.empty(self.shape, dtype=torch.uint8)
        bar = tqdm(self.files, "reading images", unit="image", disable=None, leave=False, delay=1)
        for image, file in zip(images, bar, strict=True):
            image.copy_(read_image(file, self.size, self.resize))
        return images

    def to(self, device: torch.device | str) -> ImageFiles:
        """Itself: batches go where they are wanted, these stay on the disk."""
        return self

    def first(self, count: int | None) -> ImageFiles:
        return ImageFiles(self.files[:count], self.size, self.resize)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        chosen = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        files = tuple(self.files[number] for number in chosen)
        return ImageFiles(files, self.size, self.resize).read()


@dataclass
class _Decoded(Dataset[Tensor | str]):
    """Single images; the message of a ValueError in place of one that cannot be read."""

    images: ImageFiles

    def __getitem__(self, number: int) -> Tensor | str:
        try:
            return read_image(self.images.files[number], self.images.size, self.images.resize)
        except ValueError as error:  # as it is, it would come with the traceback of a process
            return str(error)


def _batch(parts: list[Tensor | str]) -> Any:
    """In shared memory; worker processes would not give large tensors of their own back."""
    return next((part for part in parts if isinstance(part, str)), None) or default_collate(parts)


def batches_of(images: Tensor | ImageFiles, batches: Sequence[slice | Tensor]) -> Iterator[Tensor]:
    """``images[batch]`` for each of ``batches``, in their order; none may be empty."""
    if isinstance(images, Tensor):
        yield from (images[batch] for batch in batches)
        return
    every = range(len(images))
    numbers = [list(every[each]) if isinstance(each, slice) else each.tolist() for each in batches]
    workers = min(WORKERS, os.cpu_count() or 1, len(batches)) if len(batches) > 1 else 0
    decoded = _Decoded(images)
    for found in DataLoader(decoded, batch_sampler=numbers, num_workers=workers, collate_fn=_batch):
        if isinstance(found, str):
            raise ValueError(found)
        yield found
