"""Measure the top-1 accuracy of a trained model on the test images of a data set."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ..experiments.config import TrainConfig
from ._arguments import MODEL_HELP, add_replacement, add_weights

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
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument(
        "--dataset", metavar="NAME|FOLDER", help="default: what the model was trained on"
    )
    parser.add_argument("--data", metavar="DIR", help="where the archives lie (default data)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="default 128")
    parser.add_argument("--test-limit", type=int, metavar="N", help="the first N images only")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="resize all images")
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda, ... (default auto)")


def run(arguments: argparse.Namespace) -> int:
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    given: dict[str, Any] = {
        name: value for name, value in vars(arguments).items() if name in names
    }
    if arguments.checkpoint is None:
        if arguments.pretrained is None and arguments.weights is None:
            raise ValueError("--pretrained or --weights is missing: the weights for --model")
    else:
        for name in ("pretrained", "weights"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name} goes with --model, a checkpoint has its own weights")
        given.pop("model")
        given.pop("weights")
        fixed = [name for name in ("bsconv", "p", "with_bn") if name in given]
        if fixed:
            option = fixed[0].replace("_", "-")
            raise ValueError(f"--{option} goes with --model, a checkpoint says so itself")

    import torch

    from ..experiments.files.checkpoints import CONFIG, load_weights, read_config, read_trained
    from ..experiments.model_sources import build_model
    from ..experiments.training import (
        check_fit,
        evaluate,
        find_dataset,
        find_device,
        load_start,
        make_model,
        read_start,
    )

    trained = None if arguments.checkpoint is None else read_trained(arguments.checkpoint)
    if trained is None:
        config = TrainConfig(**given)
    else:
        saved = arguments.checkpoint / CONFIG  # knows where the archives lie
        data = read_config(saved).data if saved.exists() else None
        fresh = dataclasses.replace(trained.config, device="auto", test_limit=None, data=data)
        config = dataclasses.replace(fresh, **given)
    device = find_device(config.device)
    weights = read_start(config) if trained is None else None
    dataset = find_dataset(dataclasses.replace(config, train_limit=None))
    if trained is None:
        model = build_model(
            config.model,
            dataset.num_classes,
            bsconv=config.bsconv,
            p=config.p,
            with_bn=config.with_bn,
            pretrained=arguments.pretrained,
        )
        if weights is not None:
            load_start(model, weights, config)
    else:
        if trained.num_classes != dataset.num_classes:
            raise ValueError(
                f"{arguments.checkpoint} knows {trained.num_classes} classes, "
                f"{config.dataset} has {dataset.num_classes}"
            )
        model = make_model(config, trained.num_classes)
        load_weights(model, trained.state, arguments.checkpoint)
    check_fit(model, dataset, config, training=False)
    top1 = evaluate(
        model.to(device).to(memory_format=torch.channels_last),
        dataset.test_images,
        dataset.test_labels,
        batch_size=config.batch_size,
        image_size=config.image_size,
    )
    count = len(dataset.test_labels)
    print(f"{config.model} on {config.dataset}: test top-1 {top1:.2f} % of {count:,} images")
    return 0
