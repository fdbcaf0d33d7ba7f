"""Measure the top-1 accuracy of a trained model on the test images of a data set."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..experiments.config import TrainConfig
from ._arguments import (
    IMAGES,
    MODEL_HELP,
    NORMALIZATION,
    add_replacement,
    add_settings,
    add_weights,
    given_settings,
)
from ._json import add_json, print_json
from ._models import model_by_name, refuse_with_checkpoint, say_images

if TYPE_CHECKING:
    from ..experiments.files.checkpoints import TrainedModel

HELP = "measure the accuracy of a trained model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR|FILE",
        help="the --out of `bsconv train`, its model.safetensors or checkpoint.pt, or the --out of "
        "`bsconv project`: files that say themselves which model they are of",
    )
    which.add_argument("--model", metavar="MODEL", help=MODEL_HELP)
    add_weights(parser)
    add_replacement(parser)
    add_json(parser, "model, dataset, top1 in percent, images")
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument(
        "--dataset", metavar="NAME|FOLDER", help="default: what the model was trained on"
    )
    add_settings(parser, "data", "batch_size", "test_limit", *IMAGES, "device", *NORMALIZATION)


def run(arguments: argparse.Namespace) -> int:
    given = given_settings(arguments)
    if arguments.checkpoint is not None:
        refuse_with_checkpoint(arguments, "--model")
    elif arguments.pretrained is None and arguments.weights is None:
        raise ValueError("--pretrained or --weights is missing: the weights for --model")

    from ..experiments import training

    if arguments.checkpoint is not None:
        trained, config = _of_checkpoint(arguments.checkpoint, given)
    else:
        trained, config = None, TrainConfig(**given)
    device = training.find_device(config.device)
    weights = training.read_start(config) if trained is None else None
    config = training.settled(config, trained or weights)
    dataset = training.find_dataset(dataclasses.replace(config, train_limit=None))
    if noted := trained or weights:
        training.check_classes(noted.classes, dataset, arguments.checkpoint or config.weights)
    say_images(dataset)
    if trained is None:
        model = model_by_name(config, dataset.num_classes, weights)
    elif trained.num_classes == dataset.num_classes:
        model = training.trained_model(trained, arguments.checkpoint)
    else:
        raise ValueError(
            f"{arguments.checkpoint} knows {trained.num_classes} classes, "
            f"{config.dataset} has {dataset.num_classes}"
        )
    training.check_fit(model, dataset, config, training=False)

    import torch

    top1 = training.evaluate(
        model.to(device).to(memory_format=torch.channels_last),
        dataset.test_images,
        dataset.test_labels,
        batch_size=config.settings.batch_size,
        image_size=config.image_size,
        normalization=config.normalization,
    )
    count = len(dataset.test_labels)
    if arguments.json:
        print_json(model=config.model, dataset=config.dataset, top1=top1, images=count)
        return 0
    print(f"{config.model} on {config.dataset}: test top-1 {top1:.2f} % of {count:,} images")
    return 0


def _of_checkpoint(path: Path, given: dict[str, Any]) -> tuple[TrainedModel, TrainConfig]:
    """What ``bsconv train`` or ``project`` wrote, and its settings, changed by those ``given``."""
    from ..experiments.files.checkpoints import CONFIG, read_config, read_trained

    trained = read_trained(path)
    saved = path / CONFIG  # knows where the archives lie
    data = read_config(saved).data if saved.exists() else None
    settings: dict[str, Any] = {"device": "auto", "test_limit": None, "data": data}
    settings |= dict.fromkeys(("image_size", "resize"))  # come with the weights
    if "dataset" in given:
        settings["split"] = None
    settings |= given
    return trained, dataclasses.replace(trained.config, **settings)
