"""Images as a network takes them, its answers, and whether data and network fit together."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...basics.errors import one_line
from ..config import TrainConfig
from ..data import ImageDataset, load_dataset, to_float
from ..normalization import Normalization
from ..rules import DATASETS

LARGER = "a larger image_size, such as --image-size 224"


def find_dataset(
    config: TrainConfig, split: float | None = None, *, labelled: bool = True
) -> ImageDataset:
    """The images that a run takes, on the CPU; ``split``, in place of the run's, may be 1."""
    # a folder has its own sizes: resize once, from the full resolution
    size = None if config.dataset in DATASETS else config.image_size
    split = split or config.split
    how: dict[str, Any] = {"resize": config.resize, "split": split, "labelled": labelled}
    dataset = load_dataset(config.dataset, config.data, image_size=size, **how)
    if size is None and config.image_size not in (None, *dataset.image_size):
        about = f"resized to {config.image_size} x {config.image_size}"
        dataset = dataclasses.replace(dataset, about=about)
    return dataset.limited(train=config.train_limit, test=config.test_limit)


def model_input(
    images: Tensor, image_size: int | None = None, normalization: Normalization | None = None
) -> Tensor:
    """Float images, resized and normalised where asked, in the memory format that is fast."""
    floats = to_float(images) if images.dtype == torch.uint8 else images
    if image_size is not None and floats.shape[-2:] != (image_size, image_size):
        floats = F.interpolate(floats, (image_size, image_size), mode="bilinear", antialias=True)
    if normalization is not None:
        floats = normalization.apply(floats)
    return floats.contiguous(memory_format=torch.channels_last)


def logits_of(output: Any) -> Tensor:
    """Inception and GoogLeNet return auxiliary outputs too while they train; the first counts."""
    logits = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(logits, Tensor):
        kind = type(logits).__name__
        raise ValueError(f"a classifier needs to answer with a tensor, or several, got a {kind}")
    return logits


def on_device_of(model: nn.Module, images: Tensor) -> Tensor:
    return images.to(next((tensor.device for tensor in model.parameters()), images.device))


def answers(model: nn.Module, images: Tensor, name: str, advice: str) -> Tensor:
    """The logits of ``images``, without gradients; ValueError with one line and ``advice`` where
    the model ``name`` cannot take them."""
    try:
        with torch.no_grad():
            outputs = model(on_device_of(model, images))
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        shape, reason = " x ".join(map(str, images.shape)), one_line(error)
        refused = f"{name} cannot take images of {shape} ({reason})"
        raise ValueError(f"{refused}; try {advice}") from error
    return logits_of(outputs)


def check_answers(
    model: nn.Module, images: Tensor, dataset: ImageDataset, name: str, advice: str = LARGER
) -> None:
    """ValueError where the model ``name`` does not answer with a number for each class."""
    shape = tuple(answers(model, images, name, advice).shape)
    if shape != (len(images), dataset.num_classes):
        needed = f"{dataset.num_classes} outputs per image for {dataset.name}"
        got = f"shape {shape}; code of yours is told the number as num_classes"
        raise ValueError(f"{name} needs {needed}, got {got}")


def check_fit(
    model: nn.Module, dataset: ImageDataset, config: TrainConfig, *, training: bool = True
) -> None:
    """One step forward of a copy: ValueError where the model cannot take images or classes."""
    tried = dataset.train_images if training else dataset.test_images
    tried = tried[: min(2, config.settings.batch_size)]
    images = model_input(tried, config.image_size, config.normalization)
    alone = len(images) == 1 and training  # which BatchNorm cannot take
    advice = f"{LARGER}, or batches of more than one image" if alone else LARGER
    check_answers(copy.deepcopy(model).train(training), images, dataset, config.model, advice)


def check_classes(classes: Sequence[str], dataset: ImageDataset, whose: object) -> None:
    """ValueError where both have names for as many classes, but others, or in another order."""
    if len(classes) == dataset.num_classes and tuple(classes) != dataset.classes:
        known, found = (", ".join(names) for names in (classes, dataset.classes))
        raise ValueError(f"{whose} needs its classes {known}, got {dataset.name} with {found}")
