"""A folder of images by class as a data set."""

import hashlib
import os
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..rules import resize_parts
from ._image_dataset import ImageDataset
from ._image_files import ImageFiles, image_files, suffixes, visible

TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")  # the first that is there
SPLIT = 0.2
IN_MEMORY = 2**30  # bytes of images; of more, each is decoded when it is needed

Classes = dict[str, list[tuple[bytes, Path]]]  # the image files of each class, in their order


def read_folder(
    folder: Path, image_size: int, resize: str, split: float | None, labelled: bool
) -> ImageDataset:
    """``folder/train/CLASS/**`` and ``folder/test/CLASS/**``, or ``folder/CLASS/**`` split.

    Unless ``labelled``, all images below any other folder will do, as those of no class.
    """
    if image_size < 1:
        raise ValueError(f"image_size needs at least 1 pixel, got {image_size=}")
    way, filter = resize_parts(resize)
    if way.isdecimal() and int(way) < image_size:
        raise ValueError(f"resize needs image_size={image_size} or more, got {resize}")
    tree = _Tree(folder)
    try:
        parts = tree.train_and_test(split)
    except ValueError:
        tree = _Tree(folder)
        if labelled or not (below := tree.ordered(folder)):
            raise
        parts = {"": below}, {}
    (train, labels), (test, test_labels) = map(_in_order, parts)
    files = ImageFiles(train + test, image_size, resize)  # of both, so that all faults are named
    images: Any = files[:] if files.shape.numel() <= IN_MEMORY else files
    train_images, test_images = images.split([len(train), len(test)])
    how = {"squash": "squashed", "shorter": "cropped"}.get(way, f"cropped from {way}")
    how += f" ({filter})" * (filter != "bilinear")
    about = f"{image_size} x {image_size} {how}{tree.notes}"
    name, classes = folder.name or str(folder), tuple(one for one in parts[0] if one)
    return ImageDataset(name, classes, train_images, labels, test_images, test_labels, about)


class _Tree:
    """The files below a folder, and what of it is left out or held out."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.top = folder, folder.resolve()
        self.left_out: Counter[str] = Counter()
        self.held_out = ""

    @property
    def notes(self) -> str:
        counts = [f"{n} {what}{'s' * (n > 1)}" for what, n in sorted(self.left_out.items())]
        return self.held_out + (f"; left out: {', '.join(counts)}" if counts else "")

    def train_and_test(self, split: float | None) -> tuple[Classes, Classes]:
        parts = {path.name.lower(): path for path in self.subfolders(self.folder)}
        self.leave_out_images(self.folder)
        train, test = (
            next((parts[n] for n in names if n in parts and self.subfolders(parts[n])), None)
            for names in (TRAIN, TEST)
        )
        others = [path for path in parts.values() if path not in (train, test)]
        named = all(parts.keys() & names for names in (TRAIN, TEST))
        alone = (test and split != 1) or ((train or test) and others)
        if not (train and test) and (named or alone):
            needed = "folders of classes in 'train' and in 'test', or classes alone"
            found = [f"{len(self.subfolders(path))} in {path.name}" for path in parts.values()]
            raise ValueError(f"{self.folder} needs {needed}, got {', '.join(found)}")
        if not train or not test:
            return self.divided(train or test or self.folder, SPLIT if split is None else split)
        if split not in (None, 1):
            rule = "split goes with a folder that is not divided"
            raise ValueError(f"{rule}, {self.folder} holds {test.name}")
        self.left_out.update(f"folder {path.name}" for path in others)
        learnt, tested = self.classes(train), self.classes(test)
        if only_once := sorted(learnt.keys() ^ tested.keys()):
            rule = f"{train.name} and {test.name} in {self.folder} should hold the same classes"
            raise ValueError(f"{rule}; only one of them has {', '.join(only_once)}")
        return learnt, tested

    def divided(self, folder: Path, split: float) -> tuple[Classes, Classes]:
        train, test = {}, {}
        for name, files in self.classes(folder).items():
            if len(files) < 2 and split < 1:
                needed = "2 images, one to train and one to test"
                raise ValueError(f"class {name!r} in {folder} needs {needed}")
            share = Fraction(split).limit_denominator(1000)
            count = min(max(1, int(len(files) * share)), len(files) - (split < 1))
            test[name], train[name] = files[:count], files[count:]
        self.held_out = f"; {split:.0%} of each class held out to test" if split < 1 else ""
        return train, test

    def classes(self, folder: Path) -> Classes:
        classes = {path.name: self.ordered(path, folder) for path in self.subfolders(folder)}
        if folder != self.folder:
            self.leave_out_images(folder)
        for name, files in classes.items():
            if not files:
                raise ValueError(f"class folder {folder / name} holds no image that Pillow reads")
        if len(classes) < 2:
            needed = "one folder of images for each of 2 or more classes"
            raise ValueError(f"{folder} should hold {needed}, found {len(classes)}")
        return classes

    def ordered(self, folder: Path, above: Path | None = None) -> list[tuple[bytes, Path]]:
        files = image_files(folder, self.left_out, self.entries)
        return sorted((_order(file, above or folder), file) for file in files)

    def leave_out_images(self, folder: Path) -> None:
        """Those next to the folders of classes, where other files go unsaid."""
        images = (path for path in self.entries(folder) if path.suffix.lower() in suffixes())
        self.left_out.update("unlabelled image" for path in images if path.is_file())

    def subfolders(self, folder: Path) -> list[Path]:
        return [path for path in self.entries(folder) if path.is_dir()]

    def entries(self, folder: Path) -> list[Path]:
        """What is in a folder, without droppings; ValueError for a link that leads out of all."""
        paths = visible(folder)
        for path in paths:
            # resolve() fails in circles
            if not Path(os.path.realpath(path)).is_relative_to(self.top):
                out = f"is a link that leads out of {self.top}"
                raise ValueError(f"{path} {out}; copy the images instead")
            if path.is_symlink() and not path.exists():
                raise ValueError(f"{path} is a link that leads nowhere")
            if path.is_symlink() and folder.resolve().is_relative_to(path.resolve()):
                raise ValueError(f"{path} is a link that leads in a circle")
        return paths


def _order(file: Path, folder: Path) -> bytes:
    """Sorts files as if shuffled, the same on every machine, whatever else the folder holds."""
    return hashlib.sha256(file.relative_to(folder).as_posix().encode(errors="replace")).digest()


def _in_order(classes: Classes) -> tuple[tuple[Path, ...], Tensor]:
    """The files of all classes, and their labels."""
    labelled = ((*file, n) for n, files in enumerate(classes.values()) for file in files)
    samples = sorted(labelled)  # the first images are a fair sample
    labels = torch.tensor([label for _, _, label in samples], dtype=torch.int64)
    return tuple(file for _, file, _ in samples), labels
