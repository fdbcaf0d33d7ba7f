"""Train a model and measure it after every epoch. The defaults are the published CIFAR recipe."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from pathlib import Path

from ..experiments.config import OPTIMIZERS, PLANS, PRECISIONS, RECIPES, TrainConfig
from ._arguments import MODEL_HELP, add_replacement

HELP = "train a model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # what is not given stays unset: with --resume it comes from the folder of the run
    parser.set_defaults(resume=False)
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument("--model", metavar="MODEL", help=MODEL_HELP)
    add_replacement(parser)
    parser.add_argument(
        "--dataset",
        metavar="NAME|FOLDER",
        help="cifar10 (default), cifar100, synthetic, or a folder of images by class",
    )
    parser.add_argument("--data", metavar="DIR", help="where the archives lie (default data)")
    parser.add_argument("--out", metavar="DIR", help="folder of the run; none: nothing is kept")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument(
        "--recipe", choices=list(RECIPES), help="published (default) or fast: one cycle"
    )
    parser.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        help="sgd, or muon (default of fast): orthogonal steps for the weights that mix channels",
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="default 200")
    parser.add_argument("--batch-size", type=int, metavar="N", help="default 128")
    parser.add_argument(
        "--learning-rate", type=float, metavar="RATE", help="default 0.1, the peak of fast 0.3"
    )
    parser.add_argument("--momentum", type=float, metavar="M", help="default 0.9")
    parser.add_argument(
        "--weight-decay", type=float, metavar="W", help="default 1e-4, fast 5e-4 on weights only"
    )
    parser.add_argument(
        "--alpha", type=float, metavar="A", help="weight of the BSConv-S penalty (default 0.1)"
    )
    parser.add_argument(
        "--milestones",
        type=int,
        nargs="+",
        metavar="EPOCH",
        help="rate / 10 after these epochs (default 1/2, 3/4 and 9/10 of all)",
    )
    parser.add_argument("--crop-padding", type=int, metavar="PIXELS", help="default 4")
    parser.add_argument("--no-flip", dest="flip", action="store_false", help="no random flips")
    parser.add_argument("--cutout", type=int, metavar="PIXELS", help="side of the hole (default 0)")
    parser.add_argument("--train-limit", type=int, metavar="N", help="the first N images only")
    parser.add_argument("--test-limit", type=int, metavar="N", help="the first N images only")
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="resize all images (default: as they are)"
    )
    parser.add_argument(
        "--init",
        choices=["published", "matched"],
        help="first weights of BSConv layers: PyTorch's (default), or of a dense one's variance",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="start from these weights (.safetensors, .pt, .pth or the --out of a run) instead, "
        "such as what `bsconv project` wrote; they must fit the model, --bsconv included",
    )
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="train through torch.compile (default: in long runs, where a compiler is at hand)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of the training steps: float32, bfloat16 by autocast, or auto (default): float32 in "
        "short runs, whichever is faster here in long ones",
    )
    parser.add_argument(
        "--plan",
        choices=PLANS,
        help="how BSConv layers are computed: factored, merged into dense convolutions on the way, "
        "or auto (default): factored in short runs, in long ones the faster for each layer",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="default 0")
    parser.add_argument("--device", metavar="DEVICE", help="cpu, cuda, ... (default auto)")


def run(arguments: argparse.Namespace) -> int:
    try:
        config = _config(arguments)
    except ValueError:
        if int(os.environ.get("LOCAL_RANK", 0)) > 0:  # the first process here says the same
            return 2
        raise
    import torch

    from ..experiments.training import PeerFailed, Terminated, terminable, train

    try:
        with terminable():
            train(config, resume=arguments.resume)
    except torch.OutOfMemoryError as error:
        raise ValueError(f"{config.device} is out of memory, try a smaller --batch-size") from error
    except PeerFailed:
        return 2
    except ConnectionError as error:
        raise ConnectionError(f"{error}; {_how_to_go_on(config)}") from error
    except KeyboardInterrupt as stop:
        if int(os.environ.get("RANK", 0)) == 0:
            print(f"bsconv train: interrupted; {_how_to_go_on(config)}", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    return 0


def _config(arguments: argparse.Namespace) -> TrainConfig:
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    given = {name: value for name, value in vars(arguments).items() if name in names}
    if arguments.resume:
        if "out" not in given:
            raise ValueError("--resume needs --out, the folder of the run to go on with")
        saved = Path(given["out"]) / "config.json"
        if saved.exists():
            from ..experiments.files.checkpoints import read_config

            return dataclasses.replace(read_config(saved), **given)
        if "model" not in given:
            raise ValueError(f"{given['out']} holds no run to resume; --model starts one there")
    if "model" not in given:
        raise ValueError(f"--model is missing: {MODEL_HELP}")
    return TrainConfig(**given)


def _how_to_go_on(config: TrainConfig) -> str:
    if config.out is None:
        return "nothing was kept, there was no --out"
    if not (Path(config.out) / "config.json").exists():
        return "nothing was written yet"
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    here = os.environ.get("LOCAL_WORLD_SIZE", "1")
    launcher = f"torchrun --nproc-per-node {here} -m " if several else ""
    return f"go on with: {launcher}bsconv train --out {shlex.quote(config.out)} --resume"
