"""Trained networks in use: what their images and their answers mean, and what they say of files."""

import functools
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..pytorch._tools.model_tree import evaluating, parameter_count
from .config import TrainConfig
from .data import fitted, image_files, or_fault, read_image
from .export import load_exported
from .files.checkpoints import read_trained
from .files.json_files import holding
from .normalization import Normalization
from .rules import FOLDER_SIZE
from .training import logits_of, model_input, read_history, trained_model

Paths = str | os.PathLike[str]
BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image: the likeliest classes first, with their probabilities."""

    file: str
    top: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        return self.top[0][0]

    def __str__(self) -> str:
        return f"{self.file}: " + ", ".join(f"{name} {100 * p:.1f} %" for name, p in self.top)


@dataclass(eq=False, repr=False)
class Classifier:
    """A network with the names of its classes, and all that its images need.

    ``answer`` gives logits (N, classes) for images (N, 3, H, W) as :meth:`preprocess` makes them.
    """

    path: Path
    answer: Callable[[Tensor], Tensor]
    classes: tuple[str, ...]
    image_size: int
    resize: str
    normalization: Normalization

    def preprocess(self, images: Any) -> Tensor:
        """Images as the network takes them: float32 [N, 3, ``image_size``, ``image_size``].

        ``images`` is a path (of a folder: all images in it), a PIL image, a tensor (3, H, W) or an
        array (H, W, 3) of uint8 or of floats in [0, 1], or a sequence of these; or one tensor
        (N, 3, H, W) or array (N, H, W, 3). All are resized in the same way. ValueError with one
        line names a file that is not an image, or says what an image needs.
        """
        ready = [self._ready(image) for image in _each(images)]
        if not ready:
            raise ValueError("preprocess needs one image or more, got none")
        return torch.cat(ready)

    def _ready(self, image: Any) -> Tensor:
        if isinstance(image, (str, os.PathLike)):
            found = read_image(Path(image), self.image_size, self.resize)
        else:
            found = fitted(image, self.image_size, self.resize)
        return model_input(found[None], normalization=self.normalization)

    def predict(self, paths: Any, top: int = 3) -> list[Prediction]:
        """The ``top`` classes of each image; ``paths`` are paths, or what ``preprocess`` takes."""
        said = self.predictions(_each(paths), top)
        return [found for _, found in said if not isinstance(found, str)]

    def predictions(
        self, images: Iterable[Any], top: int = 3, skip: bool = False
    ) -> Iterator[tuple[Any, Prediction | str]]:
        """Each image with its prediction; with ``skip``, with what is wrong if it is none."""
        if top < 1:
            raise ValueError(f"top needs a whole number >= 1, got {top!r}")
        stream = iter(images)
        while batch := list(itertools.islice(stream, BATCH)):
            make = functools.partial(or_fault, self._ready) if skip else self._ready
            ready = [make(image) for image in batch]
            inputs = [each for each in ready if isinstance(each, Tensor)]
            logits = self.answer(torch.cat(inputs)) if inputs else torch.empty(0, 1)
            shares = iter(logits.float().softmax(1).cpu())
            for image, each in zip(batch, ready, strict=True):
                said = each if isinstance(each, str) else self._prediction(image, next(shares), top)
                yield image, said

    def _prediction(self, image: Any, shares: Tensor, top: int) -> Prediction:
        found = shares.topk(min(top, len(self.classes)))
        names = [self.classes[index] for index in found.indices.tolist()]
        file = os.fspath(image) if isinstance(image, (str, os.PathLike)) else "image"
        return Prediction(file, tuple(zip(names, found.values.tolist(), strict=True)))

    def __str__(self) -> str:
        names = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
        images = f"{self.image_size} x {self.image_size}, normalised: {self.normalization}"
        return f"{len(self.classes)} classes ({names}), images of {images}"


def _each(images: Any) -> Iterable[Any]:
    """The images of a folder, a single one, or all of several."""
    if isinstance(images, (str, os.PathLike)):
        path = Path(images)
        return image_files(path, Counter()) if path.is_dir() else [images]
    if hasattr(images, "convert") or getattr(images, "ndim", 4) < 4:  # a tensor or an array
        return [images]
    return iter(images)


class Run(Classifier):
    """A run of ``bsconv train``, or a file of weights that it or ``bsconv project`` has written.

    ``model`` is the trained network in eval mode, ``config`` its settings, ``history`` what was
    measured after every epoch (empty for a file).
    """

    def __init__(self, path: Paths) -> None:
        path = Path(path)
        trained = read_trained(path)
        self.config: TrainConfig = trained.config
        self.model: nn.Module = trained_model(trained, path).eval()
        self.history = read_history(path)
        classes = trained.classes or tuple(f"class {n}" for n in range(trained.num_classes))
        size, resize = self.config.image_size or FOLDER_SIZE, self.config.resize or "squash"
        super().__init__(path, self._answer, classes, size, resize, self.config.normalization)

    def _answer(self, images: Tensor) -> Tensor:
        device = next((tensor.device for tensor in self.model.parameters()), images.device)
        with evaluating(self.model):
            return logits_of(self.model(images.to(device)))

    def __str__(self) -> str:
        config, history = self.config, self.history
        about = f"{self.path}: {config.network}, {parameter_count(self.model):,} parameters"
        lines = [about, super().__str__()]
        if history:
            last, best = (f"{epoch.test_top1:.2f} %" for epoch in (history.last, history.best))
            trained = f"{len(history)} of {config.epochs} epochs on {config.dataset}"
            lines.append(f"{trained}: test top-1 {last}, at best {best}")
        return "\n".join(lines)

    __repr__ = __str__


def load_run(folder: Paths) -> Run:
    """What ``bsconv train`` has left in ``folder``, ready for use.

    A file of weights, such as ``bsconv project`` writes, will do too. OSError for what is not
    there, ValueError with one line for what holds no trained model.

        >>> run = bsconv.load_run("runs/fruit")  # doctest: +SKIP
        >>> print(run.predict("apple.jpg")[0])  # doctest: +SKIP
        apple.jpg: apple 97.1 %, pear 2.2 %, plum 0.7 %
    """
    return Run(folder)


def load_classifier(path: Paths) -> Classifier:
    """The network of a run, of a file of weights, or of an ONNX file of ``bsconv export``."""
    if Path(path).suffix.lower() != ".onnx":
        return Run(path)
    answer = load_exported(path)
    notes: dict[str, str] = getattr(answer, "notes", {})
    with holding("names of classes, as bsconv export writes them", str(path)):
        keys = ("classes", "input_size", "resize", "mean", "std")
        classes, shape, resize, mean, std = (json.loads(notes[key]) for key in keys)
        channels, height, size = shape
        normalization = Normalization(mean, std)
    if channels != 3 or height != size:
        size_of_one = " x ".join(map(str, shape))
        raise ValueError(f"predict needs square images of 3 channels, {path} takes {size_of_one}")
    return Classifier(Path(path), answer, tuple(classes), size, resize, normalization)
