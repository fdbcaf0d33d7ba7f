"""Turn a trained dense network into a BSConv network that keeps what it can, without training.

The weights written by --out are those of MODEL with its convolutions replaced: `bsconv evaluate
--checkpoint FILE` measures them, and `bsconv train --model MODEL --bsconv u --weights FILE` starts
from them. Images are taken without their labels.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ..experiments.config import TrainConfig
from ._arguments import MODEL_HELP, add_share, add_weights, count
from ._models import model_by_name

if TYPE_CHECKING:
    from torch import nn

    from ..experiments.data import ImageDataset

HELP = "turn a trained dense network into a BSConv network"
SUFFIX = ".safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_weights(parser, required=True)
    parser.add_argument("--bsconv", choices=["u", "s"], required=True, help="BSConv-U or BSConv-S")
    add_share(parser)
    parser.add_argument(
        "--method",
        choices=["weights", "batch_norm", "outputs"],
        default="outputs",
        help="outputs (default): layer by layer the closest outputs on the images; weights: the "
        "closest weights; batch_norm: these, with BatchNorm re-estimated on the images",
    )
    parser.add_argument(
        "--dataset",
        default=TrainConfig.dataset,
        metavar="NAME|FOLDER",
        help="whose training images it looks at (default cifar10); MODEL has as many classes",
    )
    parser.add_argument("--images", type=count, default=500, metavar="N", help="default 500")
    parser.add_argument("--data", metavar="DIR", help="where the archives lie (default data)")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="resize all images")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=f"a {SUFFIX} file")


def run(arguments: argparse.Namespace) -> int:
    if arguments.out.suffix != SUFFIX:
        raise ValueError(f"--out needs to be a {SUFFIX} file, got {arguments.out}")
    dense = TrainConfig(
        arguments.model,
        arguments.dataset,
        arguments.data,
        weights=arguments.weights,
        train_limit=arguments.images,
        image_size=arguments.image_size,
    )
    projected = dataclasses.replace(
        dense, bsconv=arguments.bsconv, p=arguments.p, weights=None, train_limit=None
    )

    from ..experiments.files.checkpoints import check_writable, write_trained
    from ..experiments.training import check_model, model_input
    from ..pytorch import project_pretrained

    check_writable(arguments.out)
    check_model(projected)
    model, dataset = _trained(dense, arguments.pretrained)
    student, report = project_pretrained(
        model,
        model_input(dataset.train_images, dense.image_size),
        kind=arguments.bsconv,
        p=arguments.p,
        method=arguments.method,
        progress=sys.stderr.isatty(),
    )
    if not report.layers:
        raise ValueError(f"{dense.model} has no convolution that BSConv replaces, see bsconv plan")
    write_trained(arguments.out, student, projected, dataset.num_classes)
    print(report)
    print(_next_steps(arguments.out, projected))
    return 0


def _trained(config: TrainConfig, pretrained: str | None) -> tuple[nn.Module, ImageDataset]:
    """The dense network with its weights, and the images it is to be compared on."""
    from ..experiments.training import check_fit, find_dataset, read_start

    weights = read_start(config)
    dataset = find_dataset(config)
    model = model_by_name(config, dataset.num_classes, pretrained=pretrained, weights=weights)
    check_fit(model, dataset, config, training=False)
    return model.eval(), dataset


def _next_steps(out: Path, config: TrainConfig) -> str:
    file = shlex.quote(str(out))
    line = f"bsconv train --model {config.model} --bsconv {config.bsconv}"
    if config.bsconv == "s":
        line += f" --p {Fraction(config.p).limit_denominator(1000)}"
    return f"measure it: bsconv evaluate --checkpoint {file}\ntrain on:   {line} --weights {file}"
