"""A model with its weights: of a checkpoint that names it, or by its name with weights for it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..experiments.config import TrainConfig
from ._arguments import usual_size

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET_CLASSES = 1000


def trained_model(arguments: argparse.Namespace) -> tuple[str, nn.Module, tuple[int, ...]]:
    """The name of the network, itself, and the size (C, H, W) of an image that it is made for.

    ValueError or OSError with one line for whatever is wrong; that weights are random is said on
    stderr.
    """
    if arguments.checkpoint is not None:
        return _of_checkpoint(arguments)
    if arguments.model is None:
        raise ValueError("MODEL or --checkpoint is missing")
    name: str = arguments.model
    model = _by_name(arguments)
    return name, model, usual_size(name, model)


def _of_checkpoint(arguments: argparse.Namespace) -> tuple[str, nn.Module, tuple[int, ...]]:
    path: Path = arguments.checkpoint
    for option in ("pretrained", "weights", "num_classes", "bsconv", "p", "with_bn"):
        if getattr(arguments, option, None) is not None:
            shown = option.replace("_", "-")
            raise ValueError(f"--{shown} goes with MODEL alone, {path} says so itself")

    from ..experiments.files.checkpoints import load_weights, read_trained
    from ..experiments.training import make_model

    trained = read_trained(path)
    name = trained.config.model
    if arguments.model is not None and arguments.model.lower() != name.lower():
        raise ValueError(f"{path} is a checkpoint of {name}, not of {arguments.model}")
    model = make_model(trained.config, trained.num_classes)
    load_weights(model, trained.state, path)
    side = trained.config.image_size or 32  # what load_dataset makes of all images
    return name, model, (3, side, side)


def _by_name(arguments: argparse.Namespace) -> nn.Module:
    import torch

    from ..experiments.data._archives import CLASS_COUNTS
    from ..experiments.model_sources import build_model
    from ..experiments.training import load_start, make_model, read_start

    settings: dict[str, Any] = {
        option: getattr(arguments, option)
        for option in ("bsconv", "p", "with_bn")
        if hasattr(arguments, option)
    }
    config = TrainConfig(arguments.model, weights=arguments.weights, **settings)
    if arguments.pretrained is not None:
        if config.bsconv is not None:
            raise ValueError("--pretrained has no weights of a model changed by --bsconv")
        classes = arguments.num_classes or CLASS_COUNTS.get(arguments.pretrained, IMAGENET_CLASSES)
        return build_model(config.model, classes, pretrained=arguments.pretrained)
    torch.manual_seed(0)  # the same file each time
    weights = read_start(config)
    model = make_model(config, arguments.num_classes or IMAGENET_CLASSES)
    if weights is None:
        print(
            f"bsconv {arguments.command}: {config.model} starts from random weights; "
            "--checkpoint, --pretrained or --weights gives it trained ones",
            file=sys.stderr,
        )
        return model
    if arguments.num_classes is None and (classes := _other_classes(model, weights)):
        model = make_model(config, classes)
    load_start(model, weights, config)
    return model


def _other_classes(model: nn.Module, weights: dict[str, Tensor]) -> int | None:
    """How many classes the weights have, where that alone keeps them from fitting the model."""
    others = {
        len(weights[name])
        for name, own in model.state_dict().items()
        if name in weights
        and len(own.shape) > 0
        and len(own) == IMAGENET_CLASSES
        and weights[name].shape[1:] == own.shape[1:]
    }
    return others.pop() if len(others) == 1 else None
