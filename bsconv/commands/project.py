"""Turn a trained dense network into a BSConv network that keeps what it can, without training.

The weights written by --out are those of MODEL with its convolutions replaced: `bsconv evaluate
--checkpoint FILE` measures them, and `bsconv train --model MODEL --bsconv u --weights FILE` starts
from them. With --budget, each layer gets a form of its own, and the file says which: evaluate,
export and benchmark take it as --checkpoint, `bsconv.pytorch.load_projected` in Python. Images are
taken without their labels, so a folder of them will do.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..experiments.config import TrainConfig
from ..experiments.rules import CLASS_COUNTS
from . import _arguments as shared
from ._models import with_images_of
from ._output import add_figure, check_files, write_figure

if TYPE_CHECKING:
    from ..experiments.files.checkpoints import Start

HELP = "turn a trained dense network into a BSConv network"
SUFFIX = ".safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help=shared.MODEL_HELP)
    shared.add_weights(parser, required=True)
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--bsconv", choices=["u", "s"], help="BSConv-U or BSConv-S in all layers")
    text = "the best form for each layer, at 25%% of the cost (or 0.25)"
    forms.add_argument("--budget", type=shared.budget, metavar="SHARE", help=text)
    text = "the cost that --budget and --curve count (default macs); time is measured here"
    add("--of", choices=["macs", "parameters", "time"], help=text)
    add_figure(parser, "the predicted damage of many budgets", "--curve")
    shared.add_share(parser)
    text = (
        "outputs (default): layer by layer the closest outputs on the images; weights: the "
        "closest weights; batch_norm: these, with BatchNorm re-estimated on the images"
    )
    add("--method", choices=["weights", "batch_norm", "outputs"], help=text)
    text = "images to look at (default: those that the weights were trained on, else cifar10)"
    add("--dataset", metavar="NAME|FOLDER", help=text)
    add("--images", type=shared.count, default=500, metavar="N", help="default 500")
    shared.add_settings(parser, "data", *shared.IMAGES, *shared.NORMALIZATION)
    add("--out", type=Path, metavar="FILE", help=f"a {SUFFIX} file")


def run(arguments: argparse.Namespace) -> None:
    given = {**shared.given_settings(arguments), "bsconv": None}
    dense = TrainConfig(**given, train_limit=arguments.images)
    _check(arguments, dense)

    from ..experiments import training
    from ..experiments.files.checkpoints import write_trained
    from ..pytorch import budget_curve, project_pretrained

    training.check_model(dataclasses.replace(dense, bsconv=arguments.bsconv))
    weights = training.read_start(dense)
    if arguments.dataset is None:
        dense = with_images_of(dense, weights)
    dense = training.settled(dense, weights)
    dataset = training.find_dataset(dense, labelled=False)
    model = training.model_by_name(dense, getattr(weights, "num_classes", None), weights).eval()
    images: Any = dataset.train_images[:]
    images = training.model_input(images, dense.image_size, dense.normalization)
    outputs = training.answers(model, images[:1], dense.model, "another --image-size").shape[-1]
    of: Any = arguments.of or "macs"
    progress = sys.stderr.isatty()
    curve = None
    if arguments.curve is not None:
        curve = budget_curve(model, images, of=of, progress=progress)
    if arguments.out is not None:
        if arguments.budget is None:
            method = arguments.method or "outputs"
            options = {"kind": arguments.bsconv, "p": dense.p, "method": method}
        else:
            options = {"budget": arguments.budget, "of": of}
            images = images if curve is None else curve
        student, report = project_pretrained(model, images, progress=progress, **options)
        if not report.layers:
            raise ValueError(f"{dense.model} has no convolution to replace, see bsconv plan")
        plan = None if report.budget is None else report.plan
        classes = (weights.classes if weights is not None else ()) or dataset.classes
        classes = classes if len(classes) == outputs else ()
        config = dataclasses.replace(dense, bsconv=arguments.bsconv, weights=None, train_limit=None)
        write_trained(arguments.out, student, config, outputs, plan, classes)
        print(report)
        more = classes and classes == dataset.classes
        print(_next_steps(arguments, weights, dense) if more else f"written: {arguments.out}")
    print(f"bsconv: {dataset}", file=sys.stderr)
    if curve is not None:
        from ..experiments import plotting

        drawn = curve if arguments.budget is None else report
        write_figure(arguments.curve, partial(plotting.damage_curve, drawn, title=dense.model))
        print(curve)


def _check(arguments: argparse.Namespace, dense: TrainConfig) -> None:
    """ValueError for options that do not go together, or a file that cannot be written."""
    out, of_all, share = arguments.out, arguments.bsconv, arguments.budget
    if not (of_all or share) and (out is not None or arguments.curve is None):
        raise ValueError("project needs --bsconv or --budget, or --curve without --out")
    if (of_all or share) and out is None:
        raise ValueError(f"project needs --out, a {SUFFIX} file for the new network")
    shared.only_with(share or arguments.curve, "--budget or --curve", arguments, "of")
    shared.only_with(of_all, "--bsconv", arguments, "method")
    if out is not None and out.suffix != SUFFIX:
        raise ValueError(f"--out needs to be a {SUFFIX} file, got {out}")
    weights = dense.weights and Path(dense.weights).resolve()
    if out and weights and out.resolve() in (weights, weights / "model.safetensors"):
        raise ValueError(f"--out needs a file other than that of --weights, got {out}")
    check_files(arguments.curve, out)


def _next_steps(arguments: argparse.Namespace, weights: Start | None, dense: TrainConfig) -> str:
    """Commands that go on from what was written; size and normalisation come with the file."""
    data = dense.data if dense.dataset in CLASS_COUNTS else None
    options: dict[str, Any] = {"model": arguments.model, "bsconv": arguments.bsconv}
    if arguments.bsconv == "s":
        options["p"] = Fraction(dense.p).limit_denominator(1000)
    options["weights"] = arguments.out
    options |= {"dataset": dense.dataset, "data": data, "split": dense.split}
    if arguments.budget is not None:
        options["teacher"] = arguments.weights
        if arguments.pretrained == dense.dataset or (weights and weights.config is None):
            options["teacher-model"] = arguments.model
        options |= {"recipe": "finetune", "epochs": 3}
    options["out"] = f"runs/{arguments.out.stem}_trained"
    measure = _line("evaluate", checkpoint=arguments.out, data=data)
    return f"measure it: {measure}\ntrain on:   {_line('train', **options)}"


def _line(command: str, **options: Any) -> str:
    words = ["bsconv", command]
    for name, value in options.items():
        words += [] if value is None else [f"--{name}", str(value)]
    return shlex.join(words)
