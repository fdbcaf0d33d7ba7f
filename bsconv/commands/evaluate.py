"""Measure the top-1 accuracy of a trained model on the test images of a data set."""

import argparse
import dataclasses
import sys
from pathlib import Path

from ..experiments.rules import DATASETS
from . import _arguments as shared
from ._models import read_model, with_images_of
from ._output import add_json, print_json

HELP = "measure the accuracy of a trained model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    text = (
        "the --out of `bsconv train`, its model.safetensors or checkpoint.pt, or the --out of "
        "`bsconv project`: files that say themselves which model they are of"
    )
    which.add_argument("--checkpoint", type=Path, metavar="DIR|FILE", help=text)
    which.add_argument("--model", metavar="MODEL", help=shared.MODEL_HELP)
    shared.add_weights(parser)
    shared.add_replacement(parser)
    add_json(parser, "model, dataset, top1 in percent, images")
    parser.argument_default = argparse.SUPPRESS
    text = "default: what the weights were trained on, else cifar10"
    parser.add_argument("--dataset", metavar="NAME|FOLDER", help=text)
    shared.add_settings(
        parser, "data", "batch_size", "test_limit", *shared.IMAGES, "device", *shared.NORMALIZATION
    )


def run(arguments: argparse.Namespace) -> None:
    path = arguments.checkpoint
    shared.given_settings(arguments, saved=path is not None)  # refuses before torch is there
    if (path, arguments.pretrained, arguments.weights) == (None, None, None):
        raise ValueError("--pretrained or --weights is missing: the weights for --model")

    from ..experiments import training

    config, start, make = read_model(arguments, "--model")
    device = training.find_device(config.device)
    if "dataset" not in arguments:
        config = with_images_of(config, start)
    split = config.split
    if "dataset" in arguments and "split" not in arguments:
        learnt = getattr(start, "config", None)
        split = None if config.dataset in DATASETS else 1.0  # all of a folder that it has not seen
        if learnt and Path(learnt.dataset).resolve().name == Path(config.dataset).resolve().name:
            split = learnt.split
    config = dataclasses.replace(training.settled(config, start), train_limit=None, split=None)
    dataset = training.find_dataset(config, split)
    training.check_classes(getattr(start, "classes", ()), dataset, path or config.weights)
    if dataset.about:  # how the images came out of a folder, and what of it is left out
        print(f"bsconv: {dataset}", file=sys.stderr)
    known = getattr(start, "num_classes", None)
    if path is not None and known != dataset.num_classes:
        has = f"{config.dataset} has {dataset.num_classes}"
        raise ValueError(f"{path} knows {known} classes, {has}")
    model = make(dataset.num_classes)
    training.check_fit(model, dataset, config, training=False)

    import torch

    model = model.to(device).to(memory_format=torch.channels_last)
    top1 = training.evaluate(model, dataset.test_images, dataset.test_labels, config)
    count = len(dataset.test_labels)
    if arguments.json:
        print_json(model=config.model, dataset=config.dataset, top1=top1, images=count)
    else:
        print(f"{config.model} on {config.dataset}: test top-1 {top1:.2f} % of {count:,} images")
