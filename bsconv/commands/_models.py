"""What commands say of models, and what they take where nothing is said."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ..experiments.rules import IMAGENET_CLASSES

if TYPE_CHECKING:
    from torch import nn

    from ..experiments.data import ImageDataset
    from ..experiments.files.checkpoints import TrainedModel


def usual_classes(name: str) -> int:
    """Of the data that the model ``name`` is made for."""
    return 10 if name.lower().startswith("cifar_") else IMAGENET_CLASSES


def usual_size(name: str, model: nn.Module) -> tuple[int, ...]:
    """Of one image that the model ``name`` is made for; those of pytorchcv and timm say it."""
    side = 32 if name.lower().startswith("cifar_") else 224
    size = (3, *getattr(model, "in_size", (side, side)))
    about = getattr(model, "pretrained_cfg", {}) if name.startswith("timm:") else {}
    return tuple(about.get("input_size", size))


def untrained(arguments: argparse.Namespace) -> tuple[nn.Module, tuple[int, ...]]:
    """The model that the command line names, and the shape of one image for it, (1, C, H, W)."""
    from ..experiments.model_sources import build_model

    name = arguments.model
    model = build_model(name, arguments.num_classes or usual_classes(name))
    return model, (1, *(arguments.input_size or usual_size(name, model)))


def read_checkpoint(arguments: argparse.Namespace, model: str) -> TrainedModel:
    """What --checkpoint names; ValueError for an option that goes with ``model`` alone."""
    from ..experiments.files.checkpoints import read_trained

    for option in ("pretrained", "weights", "num_classes", "bsconv", "p", "with_bn"):
        if getattr(arguments, option, None) is not None:
            rule = f"--{option.replace('_', '-')} goes with {model} alone"
            raise ValueError(f"{rule}, {arguments.checkpoint} says so itself")
    return read_trained(arguments.checkpoint)


def say_images(dataset: ImageDataset) -> None:
    """Tell on stderr how the images came out of a folder, and what of it is left out."""
    if dataset.about:
        print(f"bsconv: {dataset}", file=sys.stderr)


def say_random(command: str, name: str, ways: str) -> None:
    """Tell on stderr that weights are random, and which options change that."""
    text = f"{name} starts from random weights; {ways} gives it trained ones"
    print(f"bsconv {command}: {text}", file=sys.stderr)
