"""Models with their weights, for all commands: by name, of a checkpoint, of a file of weights."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ..experiments.config import TrainConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..experiments.data import ImageDataset
    from ..experiments.files.checkpoints import Start, TrainedModel

IMAGENET_CLASSES = 1000


def usual_classes(name: str) -> int:
    """Of the data that the model ``name`` is made for."""
    return 10 if name.lower().startswith("cifar_") else IMAGENET_CLASSES


def usual_size(name: str, model: nn.Module) -> tuple[int, ...]:
    """Of one image that the model ``name`` is made for; models of pytorchcv say it themselves."""
    side = 32 if name.lower().startswith("cifar_") else 224
    return (3, *getattr(model, "in_size", (side, side)))


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


def model_by_name(config: TrainConfig, num_classes: int | None, weights: Start | None) -> nn.Module:
    """The model of ``config`` with ``weights``, or random ones, the same each time; by default with
    as many classes as the weights have, else 1000."""
    import torch

    from ..experiments.training import load_start, make_model

    if config.pretrained is not None and config.bsconv is not None:
        raise ValueError("--pretrained has no weights of a model changed by --bsconv")
    torch.manual_seed(0)
    model = make_model(config, num_classes or IMAGENET_CLASSES)
    if weights is None:
        return model
    if num_classes is None and (found := _classes_in(weights.state, model)):
        model = make_model(config, found)
    return load_start(model, weights, config)


def _classes_in(weights: dict[str, Tensor], model: nn.Module) -> int | None:
    """How many classes ``weights`` have, where only that keeps them from fitting ``model``."""
    pairs = [(weights[name], own) for name, own in model.state_dict().items() if name in weights]
    heads = [(each, own) for each, own in pairs if own.shape[:1] == (IMAGENET_CLASSES,)]
    found = {len(each) for each, own in heads if each.shape[1:] == own.shape[1:]}
    return found.pop() if len(found) == 1 else None


def say_images(dataset: ImageDataset) -> None:
    """Tell on stderr how the images came out of a folder, and what of it is left out."""
    if dataset.about:
        print(f"bsconv: {dataset}", file=sys.stderr)


def say_random(command: str, name: str, ways: str) -> None:
    """Tell on stderr that weights are random, and which options change that."""
    text = f"{name} starts from random weights; {ways} gives it trained ones"
    print(f"bsconv {command}: {text}", file=sys.stderr)
