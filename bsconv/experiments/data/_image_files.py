"""One image of a file, and many of a folder that memory does not hold, decoded when needed."""

from __future__ import annotations

import functools
import os
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image
from PIL.Image import Transpose as Turn
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from tqdm import tqdm

from ...basics.errors import one_line
from ..rules import resize_parts

# what operating systems and archives drop into folders, and no one looks for
DROPPINGS = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"}
# opened by other programs (Ghostscript), only on Windows, or named but never decoded
NOT_READ = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
# what a tensor or an array of an image may hold
PIXELS = ("uint8", "float16", "bfloat16", "float32", "float64")
MOST_NAMED = 20  # images that cannot be read, in one message
WORKERS = 4  # processes that decode, at most
TURNS: dict[Any, Turn] = {  # by orientation; ImageOps would write all other EXIF again as well
    2: Turn.FLIP_LEFT_RIGHT, 3: Turn.ROTATE_180, 4: Turn.FLIP_TOP_BOTTOM, 5: Turn.TRANSPOSE,
    6: Turn.ROTATE_270, 7: Turn.TRANSVERSE, 8: Turn.ROTATE_90,
}  # fmt: skip


@functools.cache
def formats() -> tuple[str, ...]:
    """All that Pillow decodes by itself."""
    Image.init()
    return tuple(sorted(Image.OPEN.keys() - NOT_READ))


@functools.cache
def suffixes() -> set[str]:
    names = Image.registered_extensions()
    return {suffix for suffix in names if names[suffix] in (*formats(), "MPO")}


def visible(folder: Path) -> list[Path]:
    """What is in a folder, without what is hidden, or dropped there by systems and archives."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in paths if path.name.lower() not in DROPPINGS]


def image_files(
    folder: Path, left_out: Counter[str], entries: Callable[..., list[Path]] = visible, *above: Path
) -> list[Path]:
    """All images below a folder, of its ``entries``; ``left_out`` counts other files' suffixes."""
    found, above = list[Path](), (*above, folder.resolve())
    for path in entries(folder):
        if path.is_dir() and path.resolve() not in above:  # a link may lead in a circle
            found += image_files(path, left_out, entries, *above)
        elif path.suffix.lower() in suffixes():
            found.append(path)
        else:
            left_out[f"{path.suffix.lower() or path.name} file"] += 1
    return found


def read_image(file: Path, size: int, resize: str = "squash") -> Tensor:
    """uint8 [3, ``size``, ``size``] of any image; ValueError where there is none to be had.

    ``resize`` is "squash", whatever the proportions; "shorter", the middle of the image whose
    shorter side has become ``size``; or a number of pixels in place of ``size`` there; each may
    name a filter of Pillow other than bilinear, as in "256,bicubic".
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
        reason = one_line(error, None).removesuffix(f" {str(file)!r}")
        raise ValueError(f"{file} is not a readable image: {reason}") from error


def fitted(image: Any, size: int, resize: str = "squash") -> Tensor:
    """The same of an image that is open already, a tensor (3, H, W) or an array (H, W, 3).

    The two hold uint8, or floats in [0, 1], which give float32. ValueError for any other.
    """
    if isinstance(image, Image.Image):
        image.load()  # turns a TIFF
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
        image = _resized(_rgb(image if turn is None else image.transpose(turn)), size, resize)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)
    pixels = _pixels(image)
    if pixels.dtype == torch.uint8:
        return fitted(Image.fromarray(pixels.permute(1, 2, 0).numpy()), size, resize)
    bands = [Image.fromarray(band.numpy()) for band in pixels.float()]
    resized = [torch.from_numpy(np.array(_resized(band, size, resize))) for band in bands]
    return torch.stack(resized).clamp_(0, 1)  # which a bicubic filter may leave


def _pixels(image: Any) -> Tensor:
    """A tensor (3, H, W) on the CPU of a tensor, or of an array (H, W, 3)."""
    if not isinstance(image, (Tensor, np.ndarray)):
        kinds = "a path, a PIL image, a tensor or an array"
        raise ValueError(f"an image needs to be {kinds}, got {type(image).__name__}")
    of_array = isinstance(image, np.ndarray)
    if image.ndim != 3 or image.shape[-1 if of_array else 0] != 3 or 0 in image.shape:
        form = "(H, W, 3) as an array" if of_array else "(3, H, W)"
        raise ValueError(f"an image needs 3 channels, as {form}, got shape {tuple(image.shape)}")
    if str(image.dtype).removeprefix("torch.") not in PIXELS:
        raise ValueError(f"an image needs uint8, or floats in 0 ... 1, got {image.dtype}")
    if isinstance(image, Tensor):
        pixels = image.detach().cpu()
    else:  # a copy, which may be written to and lies in order
        pixels = torch.from_numpy(np.array(image, order="C")).permute(2, 0, 1)
    if pixels.dtype != torch.uint8 and not ((pixels >= 0) & (pixels <= 1)).all():
        low, high = float(pixels.min()), float(pixels.max())
        raise ValueError(f"an image of floats needs them in 0 ... 1, got {low:g} to {high:g}")
    return pixels


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
    how, name = resize_parts(resize)
    filter = Image.Resampling[name.upper()]
    if how == "squash":
        return image.resize((size, size), filter)
    shorter, short = size if how == "shorter" else max(size, int(how)), min(image.size)
    width, height = (int(shorter * side / short) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), filter).crop((left, top, left + size, top + size))


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Stands for the uint8 tensor [N, 3, ``size``, ``size``] of these files; an index reads some.

    :func:`batches_of` reads many of them, by processes of their own.
    """

    files: tuple[Path, ...]
    size: int
    resize: str

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

    def to(self, device: torch.device | str) -> ImageFiles:
        """Itself: batches go where they are wanted, these stay on the disk."""
        return self

    def split(self, counts: Sequence[int]) -> list[ImageFiles]:
        parts = self.files[: counts[0]], self.files[counts[0] :]
        return [ImageFiles(files, self.size, self.resize) for files in parts]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        numbers = [torch.tensor([number]) for number in _numbers(index, len(self))]
        images = torch.empty((len(numbers), *self.shape[1:]), dtype=torch.uint8)
        bar = tqdm(images, "reading images", unit="image", disable=None, leave=False, delay=1)
        for image, found in zip(bar, batches_of(self, numbers, 0), strict=True):
            image.copy_(found[0])
        return images


def batches_of(
    images: Tensor | ImageFiles, batches: Sequence[slice | Tensor], most: int = WORKERS
) -> Iterator[Tensor]:
    """``images[batch]`` for each of ``batches``, none empty; ValueError names all bad files."""
    if isinstance(images, Tensor):
        yield from (images[batch] for batch in batches)
        return
    files: Any = images.files
    numbers = [_numbers(batch, len(images)) for batch in batches]
    workers = min(most, os.cpu_count() or 1, len(batches)) if len(batches) > 1 else 0
    decode = functools.partial(_decoded, images.size, images.resize)
    own = torch.Generator()  # the global one is that of dropout
    faults: list[str] = []
    for found in DataLoader(
        files, batch_sampler=numbers, num_workers=workers, collate_fn=decode, generator=own
    ):
        if isinstance(found, list):
            faults += found
        elif not faults:
            yield found
    if faults:
        more = f"; and {len(faults) - MOST_NAMED} more" if len(faults) > MOST_NAMED else ""
        raise ValueError("; ".join(faults[:MOST_NAMED]) + more)


def _numbers(index: slice | Tensor, count: int) -> list[int]:
    return list(range(count)[index]) if isinstance(index, slice) else index.tolist()


def _decoded(size: int, resize: str, files: Sequence[Path]) -> Tensor | list[str]:
    """A batch in shared memory, which processes give back; or faults, without a traceback."""
    images: Any = [or_fault(read_image, file, size, resize) for file in files]
    return [each for each in images if isinstance(each, str)] or default_collate(images)


def or_fault(read: Callable[..., Tensor], *given: Any) -> Tensor | str:
    """What ``read`` makes of ``given``, or what is wrong with that."""
    try:
        return read(*given)
    except ValueError as error:
        return str(error)
