"""What commands say of models, and what they take where nothing is said."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..experiments.config import TrainConfig
from ..experiments.rules import DATASETS, FOLDER_SIZE, IMAGENET_CLASSES, absolute_name
from ._arguments import MODEL_HELP, add_weights, given_settings, only_with

if TYPE_CHECKING:
    from torch import nn

    from ..experiments.files.checkpoints import Start


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


def read_model(
    arguments: argparse.Namespace, model: str
) -> tuple[TrainConfig, Start | None, Callable[[int | None], nn.Module]]:
    """Of --checkpoint, or of ``model`` with its weights: the settings, changed by those given, the
    weights, and what makes the network, as model_by_name does, for a number of classes."""
    from ..experiments.files.checkpoints import CONFIG, read_config, read_trained
    from ..experiments.training import model_by_name, read_start, trained_model

    path = arguments.checkpoint
    given = given_settings(arguments, saved=path is not None)
    if path is None:
        config = TrainConfig(**given)
        start = read_start(config)
        return config, start, lambda classes: model_by_name(config, classes, start)
    known = ("pretrained", "weights", "num_classes", "bsconv", "p", "with_bn")
    only_with(False, f"{model} alone ({path} says so itself)", arguments, *known)
    trained = read_trained(path)
    name = absolute_name(given.pop("model", trained.config.model))
    if name.lower() != trained.config.model.lower():
        raise ValueError(f"{path} is a checkpoint of {trained.config.model}, not of {name}")
    settings: dict[str, Any] = {"device": "auto", "test_limit": None}
    settings |= dict.fromkeys(("image_size", "resize"))  # come with the weights
    saved = path / CONFIG  # knows where the archives lie
    settings["data"] = read_config(saved).data if saved.exists() else None
    config = dataclasses.replace(trained.config, **settings | given)
    return config, trained, lambda _: trained_model(trained, path)


def add_chosen(parser: argparse.ArgumentParser) -> None:
    text = f"{MODEL_HELP}; not needed with --checkpoint, which names it"
    parser.add_argument("model", nargs="?", metavar="MODEL", help=text)
    text = "the --out of `bsconv train` or `bsconv project`, which say themselves what they are"
    add_weights(parser).add_argument("--checkpoint", type=Path, metavar="DIR|FILE", help=text)


def chosen_model(
    arguments: argparse.Namespace,
) -> tuple[nn.Module, TrainConfig, tuple[int, ...], Sequence[str]]:
    """Of add_chosen: the network in eval mode; its images' making and size; its classes' names."""
    if arguments.model is None and arguments.checkpoint is None:
        raise ValueError("MODEL or --checkpoint is missing")
    config, start, make = read_model(arguments, "MODEL")
    model, side = make(arguments.num_classes), None
    if start is not None and start.config is not None:
        config = config.images_as(start.config)
        of_file = arguments.checkpoint or config.weights
        side = config.image_size or (FOLDER_SIZE if of_file else None)
    size = arguments.input_size or ((3, side, side) if side else usual_size(arguments.model, model))
    return model.eval(), config, size, start.classes if start else ()


def with_images_of(config: TrainConfig, start: Start | None) -> TrainConfig:
    """``config`` with the images that the weights ``start`` were trained on, if they say so."""
    if start is None or (learnt := start.config) is None:
        return config
    if learnt.dataset not in DATASETS and not Path(learnt.dataset).is_dir():
        gone = f"the weights were trained on {learnt.dataset}, which is not here"
        raise ValueError(f"--dataset is missing: {gone}")
    return dataclasses.replace(config, dataset=learnt.dataset, split=config.split or learnt.split)


def say_random(command: str, name: str, ways: str) -> None:
    """Tell on stderr that weights are random, and which options change that."""
    text = f"{name} starts from random weights; {ways} gives it trained ones"
    print(f"bsconv {command}: {text}", file=sys.stderr)
