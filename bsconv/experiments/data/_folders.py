"""A folder of images by class as a data set."""

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from ...pytorch._tools.errors import one_line
from ._image_dataset import ImageDataset

SUFFIXES = (".png", ".jpg", ".jpeg")


def read_folder(folder: Path, image_size: int) -> ImageDataset:
    """``folder/train/CLASS/*`` and ``folder/test/CLASS/*``, or ``folder/CLASS/*`` split 80 : 20."""
    if image_size < 1:
        raise ValueError(f"image_size needs at least 1 pixel, got {image_size=}")
    top = folder.resolve()
    if any(_subfolders(folder / split, top) for split in ("train", "test")):
        for split, other in (("train", "test"), ("test", "train")):
            if not (folder / split).is_dir():
                raise ValueError(f"there is no folder {split!r} next to {folder / other}")
        train, test = (_classes(folder / split, top) for split in ("train", "test"))
        if only_once := sorted(train.keys() ^ test.keys()):
            raise ValueError(
                f"train and test in {folder} should hold the same classes; "
                f"only one of them has {', '.join(only_once)}"
            )
    else:
        train, test = {}, {}
        for name, files in _classes(folder, top).items():
            if len(files) < 2:
                raise ValueError(
                    f"class {name!r} in {folder} needs 2 images, one to train and one to test"
                )
            shuffled, held_out = sorted(files, key=_order), max(1, len(files) // 5)
            test[name], train[name] = shuffled[:held_out], shuffled[held_out:]
    return ImageDataset(
        folder.name or str(folder),
        tuple(train),
        *_read_images(train, image_size),
        *_read_images(test, image_size),
    )


def _order(file: Path) -> bytes:
    """Sorts files as if shuffled, the same on every machine, whatever else the folder holds."""
    return hashlib.sha256(f"{file.parent.name}/{file.name}".encode(errors="replace")).digest()


def _subfolders(folder: Path, top: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_symlink() and not path.exists():
            raise ValueError(f"{path} is a link that leads nowhere")
        if path.is_dir():
            _refuse_link_out(path, top)
            found.append(path)
    return found


def _classes(folder: Path, top: Path) -> dict[str, list[Path]]:
    """Class name -> image files, both sorted."""
    classes = {}
    for subfolder in _subfolders(folder, top):
        files = sorted(
            path
            for path in subfolder.iterdir()
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
        if not files:
            raise ValueError(f"class folder {subfolder} holds no image ({', '.join(SUFFIXES)})")
        for file in files:
            _refuse_link_out(file, top)
        classes[subfolder.name] = files
    if len(classes) < 2:
        raise ValueError(
            f"{folder} should hold one folder of images for each of 2 or more classes, "
            f"found {len(classes)}"
        )
    return classes


def _refuse_link_out(path: Path, top: Path) -> None:
    if not Path(os.path.realpath(path)).is_relative_to(top):  # resolve() fails on links in circles
        raise ValueError(f"{path} is a link that leads out of {top}; copy the images instead")


def _read_images(classes: dict[str, list[Path]], size: int) -> tuple[Tensor, Tensor]:
    samples = [(file, label) for label, files in enumerate(classes.values()) for file in files]
    samples.sort(key=lambda sample: _order(sample[0]))  # the first images are a fair sample
    images = np.empty((len(samples), size, size, 3), np.uint8)
    bar = tqdm(samples, desc="reading images", unit="image", disable=None, leave=False, delay=1)
    with warnings.catch_warnings():
        # images of absurd size are an error from the limit on at which Pillow begins to warn
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for image, (file, _) in zip(images, bar, strict=True):
            image[...] = _read_image(file, size)
    labels = torch.tensor([label for _, label in samples])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels


def _read_image(file: Path, size: int) -> np.ndarray:
    if not file.is_file():
        raise ValueError(f"{file} is not a readable image: it is not a regular file")
    try:
        with Image.open(file, formats=("PNG", "JPEG")) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16 bit grey, which convert would clip at 255
                wide = np.asarray(image).astype(np.float64)
                image = Image.fromarray((wide / 257).round().clip(0, 255).astype(np.uint8))
            if image.mode == "P":  # RGBA in between: a palette may carry its transparency in bytes
                image = image.convert("RGBA")
            image = image.convert("RGB")
            # Pillow widens the filter when it shrinks, so this is antialiased
            return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and more
        raise ValueError(f"{file} is not a readable image: {one_line(error, None)}") from error
