"""Trained networks in use: what their images and their answers mean, and what they say of files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..pytorch._tools.model_tree import evaluating, parameter_count
from .config import FOLDER_SIZE, TrainConfig
from .data import fitted, read_image
from .export import load_exported
from .files.checkpoints import read_trained
from .files.json_files import holding
from .normalization import Normalization
from .training import logits_of, model_input, read_history, trained_model

if TYPE_CHECKING:
    from PIL.Image import Image

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


class Classifier:
    """A network with the names of its classes, and all that its images need.

    ``answer`` gives logits (N, classes) for images (N, 3, H, W) as :meth:`preprocess` makes them.
    """

    def __init__(
        self,
        path: Paths,
        answer: Callable[[Tensor], Tensor],
        classes: Sequence[str],
        image_size: int,
        resize: str,
        normalization: Normalization,
    ) -> None:
        self.path, self.answer, self.classes = Path(path), answer, tuple(classes)
        self.image_size, self.resize, self.normalization = image_size, resize, normalization

    def preprocess(self, images: Any) -> Tensor:
        """Images as the network takes them: float32 [N, 3, ``image_size``, ``image_size``].

        ``images`` is a path, a PIL image, or a tensor of uint8 or of floats in [0, 1] of shape
        (3, H, W), or a sequence of these; or a tensor of shape (N, 3, H, W). ValueError with one
        line names a file that is no image.
        """
        alone = isinstance(images, (str, os.PathLike)) or hasattr(images, "convert")
        if alone or (isinstance(images, Tensor) and images.dim() == 3):
            images = [images]
        ready = [self._ready(image) for image in images]
        if not ready:
            raise ValueError("preprocess needs one image or more, got none")
        return torch.cat(ready)

    def _ready(self, image: Paths | Image | Tensor) -> Tensor:
        size = self.image_size
        if isinstance(image, (str, os.PathLike)):
            image = read_image(Path(image), size, self.resize)
        elif not isinstance(image, Tensor):
            image = fitted(image, size, self.resize)
        if image.dim() != 3 or len(image) != 3:
            raise ValueError(
                f"an image needs 3 channels, as (3, H, W), got shape {tuple(image.shape)}"
            )
        resized = model_input(image[None], size)  # normalised last, as in training
        return model_input(resized, normalization=self.normalization)

    def predict(self, paths: Any, top: int = 3) -> list[Prediction]:
        """The ``top`` classes of each image; ``paths`` are paths, or what ``preprocess`` takes."""
        if isinstance(paths, (str, os.PathLike)):
            paths = [paths]
        return [found for _, found in self.predictions(paths, top) if not isinstance(found, str)]

    def predictions(
        self, images: Iterable[Any], top: int = 3, skip: bool = False
    ) -> Iterator[tuple[Any, Prediction | str]]:
        """Each image with its prediction; with ``skip``, with what is wrong if it is none."""
        if top < 1:
            raise ValueError(f"top needs a whole number >= 1, got {top!r}")
        waiting: list[tuple[Any, Tensor | str]] = []
        for image in images:
            try:
                waiting.append((image, self.preprocess(image)))
            except ValueError as error:
                if not skip:
                    raise
                waiting.append((image, str(error)))
            if len(waiting) == BATCH:
                yield from self._answers(waiting, top)
                waiting = []
        yield from self._answers(waiting, top)

    def _answers(
        self, batch: list[tuple[Any, Tensor | str]], top: int
    ) -> Iterator[tuple[Any, Prediction | str]]:
        inputs = [each for _, each in batch if isinstance(each, Tensor)]
        shares = iter(self.answer(torch.cat(inputs)).float().softmax(1).cpu() if inputs else ())
        for image, each in batch:
            if isinstance(each, str):
                yield image, each
                continue
            share, number = next(shares).topk(min(top, len(self.classes)))
            named = tuple(
                (self.classes[index], probability)
                for index, probability in zip(number.tolist(), share.tolist(), strict=True)
            )
            file = os.fspath(image) if isinstance(image, (str, os.PathLike)) else "image"
            yield image, Prediction(file, named)

    def __str__(self) -> str:
        names = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
        images = f"{self.image_size} x {self.image_size}, normalised: {self.normalization}"
        return f"{len(self.classes)} classes ({names}), images of {images}"


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
        classes = trained.classes or [f"class {number}" for number in range(trained.num_classes)]
        size, resize = self.config.image_size or FOLDER_SIZE, self.config.resize or "squash"
        super().__init__(path, self._answer, classes, size, resize, self.config.normalization)

    def _answer(self, images: Tensor) -> Tensor:
        device = next((tensor.device for tensor in self.model.parameters()), images.device)
        with evaluating(self.model):
            return logits_of(self.model(images.to(device)))

    def __str__(self) -> str:
        config, history = self.config, self.history
        form = "" if config.bsconv is None else f" as BSConv-{config.bsconv.upper()}"
        lines = [
            f"{self.path}: {config.model}{form}, {parameter_count(self.model):,} parameters",
            super().__str__(),
        ]
        if history:
            lines.append(
                f"{len(history)} of {config.epochs} epochs on {config.dataset}: test top-1 "
                f"{history.last.test_top1:.2f} %, at best {history.best.test_top1:.2f} %"
            )
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
        classes, (_, _, size), resize, mean, std = (json.loads(notes[key]) for key in keys)
        return Classifier(path, answer, classes, size, resize, Normalization(mean, std))
