"""Turn a trained dense network into a BSConv network that keeps what it can, without training.

The weights written by --out are those of MODEL with its convolutions replaced: `bsconv evaluate
--checkpoint FILE` measures them, and `bsconv train --model MODEL --bsconv u --weights FILE` starts
from them. With --budget, each layer gets a form of its own, and the file says which: evaluate and
export take it as --checkpoint, `bsconv.pytorch.load_projected` in Python. Images are taken without
their labels.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..experiments.config import TrainConfig
from ._arguments import (
    IMAGES,
    MODEL_HELP,
    NORMALIZATION,
    add_settings,
    add_share,
    add_weights,
    budget,
    count,
    given_settings,
)
from ._files import add_figure, check_files, write_figure
from ._models import model_by_name, say_images

if TYPE_CHECKING:
    from torch import nn

    from ..experiments.data import ImageDataset
    from ..experiments.files.checkpoints import Start
    from ..experiments.plotting import Figure
    from ..pytorch import BudgetCurve

HELP = "turn a trained dense network into a BSConv network"
SUFFIX = ".safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_weights(parser, required=True)
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--bsconv", choices=["u", "s"], help="BSConv-U or BSConv-S in all layers")
    forms.add_argument(
        "--budget",
        type=budget,
        metavar="SHARE",
        help="the best form for each layer, at 25%% of the cost (or 0.25)",
    )
    parser.add_argument(
        "--of",
        choices=["macs", "parameters", "time"],
        help="the cost that --budget and --curve count (default macs); time is measured here",
    )
    add_figure(parser, "the predicted damage of many budgets", "--curve")
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
    add_settings(parser, "data", *IMAGES, *NORMALIZATION)
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"a {SUFFIX} file")


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    given = {**given_settings(arguments), "bsconv": None}
    dense = TrainConfig(**given, train_limit=arguments.images)

    from ..experiments.files.checkpoints import write_trained
    from ..experiments.training import check_model, model_input, read_start, settled
    from ..pytorch import budget_curve, project_pretrained

    check_model(dataclasses.replace(dense, bsconv=arguments.bsconv))
    weights = read_start(dense)
    dense = settled(dense, weights)
    projected = dataclasses.replace(dense, bsconv=arguments.bsconv, weights=None, train_limit=None)
    model, dataset = _trained(dense, weights)
    images: Any = model_input(dataset.train_images[:], dense.image_size, dense.normalization)
    of: Any = arguments.of or "macs"
    progress = sys.stderr.isatty()
    curve = None
    if arguments.curve is not None:
        curve = budget_curve(model, images, of=of, progress=progress)
    if arguments.out is not None:
        if arguments.budget is None:
            options = {"kind": arguments.bsconv, "p": dense.p, "method": arguments.method}
        else:
            options = {"budget": arguments.budget, "of": of}
            images = images if curve is None else curve
        student, report = project_pretrained(model, images, progress=progress, **options)
        if not report.layers:
            raise ValueError(
                f"{dense.model} has no convolution that BSConv replaces, see bsconv plan"
            )
        plan = None if report.budget is None else report.plan
        classes = (weights.classes if weights is not None else ()) or dataset.classes
        write_trained(arguments.out, student, projected, len(classes), plan, classes)
        print(report)
        print(_next_steps(arguments, weights))
    if curve is not None:
        write_figure(arguments.curve, lambda: _drawn(curve, dense.model))
        print(curve)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """ValueError for options that do not go together, or a file that cannot be written."""
    chosen = arguments.bsconv or arguments.budget
    if not chosen and (arguments.out is not None or arguments.curve is None):
        raise ValueError("project needs --bsconv or --budget, or --curve without --out")
    if chosen and arguments.out is None:
        raise ValueError(f"project needs --out, a {SUFFIX} file for the new network")
    if arguments.of and not (arguments.budget or arguments.curve):
        raise ValueError("--of goes with --budget or --curve alone")
    for option, default in (("p", None), ("method", "outputs")):
        if not arguments.bsconv and getattr(arguments, option) != default:
            raise ValueError(f"--{option} goes with --bsconv alone")
    if arguments.out is not None and arguments.out.suffix != SUFFIX:
        raise ValueError(f"--out needs to be a {SUFFIX} file, got {arguments.out}")
    check_files(figure=arguments.curve, other=arguments.out)


def _drawn(curve: BudgetCurve, model: str) -> Figure:
    from ..experiments import plotting

    damages = {point.share: point.damage for point in curve.points}
    return plotting.damage_curve(damages, "MACs" if curve.of == "macs" else curve.of, title=model)


def _trained(config: TrainConfig, weights: Start | None) -> tuple[nn.Module, ImageDataset]:
    """The dense network with its weights, and the images it is to be compared on."""
    from ..experiments.training import check_fit, find_dataset

    dataset = find_dataset(config)
    say_images(dataset)
    model = model_by_name(config, dataset.num_classes, weights)
    check_fit(model, dataset, config, training=False)
    return model.eval(), dataset


def _next_steps(arguments: argparse.Namespace, weights: Start | None) -> str:
    """Commands that go on from what was written; size and normalisation come with the file."""
    out, given = shlex.quote(str(arguments.out)), given_settings(arguments)
    line = f"bsconv train --model {shlex.quote(arguments.model)}"
    if arguments.bsconv is not None:
        line += f" --bsconv {arguments.bsconv}"
    if arguments.bsconv == "s":
        line += f" --p {Fraction(given.get('p', TrainConfig.p)).limit_denominator(1000)}"
    line += f" --weights {out}"
    for name in ("dataset", "data", "split"):
        if name in given:
            line += f" --{name} {shlex.quote(str(given[name]))}"
    if arguments.budget is not None:
        if arguments.weights is not None:
            line += f" --teacher {shlex.quote(arguments.weights)}"
        if arguments.pretrained == arguments.dataset or (weights and weights.config is None):
            line += f" --teacher-model {shlex.quote(arguments.model)}"
        line += " --recipe finetune --epochs 3"
    data = f" --data {shlex.quote(str(given['data']))}" if "data" in given else ""
    return f"measure it: bsconv evaluate --checkpoint {out}{data}\ntrain on:   {line}"
