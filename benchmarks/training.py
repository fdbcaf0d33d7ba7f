"""An epoch of training: the published package's script, our trainer, and the dense network in it.

Each runs in a process of its own; an epoch at a time they take turns. The first epoch of each, in
which ours measures and compiles, is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .arguments import positive
from .cifar_folder import write_cifar10_folder
from .contenders import Contender, seconds_in_turns
from .published import ADVICE, is_installed
from .timing import Comparison

MODELS = ("cifar_resnet20_bsconvu", "cifar_wrn16_4_bsconvu", "cifar_resnet20_bsconvs_p1d4")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="MODEL")
    add_training_arguments(parser)
    parser.add_argument(
        "--dense", metavar="MODEL", help="the dense network of --models (default: of their names)"
    )
    parser.add_argument("--whole", action="store_true", help="epochs of all training images")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="loaders of the published script; its own: 4"
    )
    parser.add_argument(
        "--without", nargs="+", default=(), choices=("published", "dense"), metavar="CONTENDER"
    )


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """What the benchmarks of training steps share."""
    parser.add_argument("--images", type=positive, default=6400, help="of an epoch (default 6400)")
    parser.add_argument("--batch-size", type=positive, default=128)
    parser.add_argument("--recipe", default="published", help="of our trainer; see bsconv train")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dataset", default="cifar10", choices=("cifar10", "synthetic"))
    parser.add_argument("--data", metavar="FOLDER", help="of the archive cifar10.npz")
    parser.add_argument("--untuned", action="store_true", help="float32, eager, layers as they are")


def run(arguments: argparse.Namespace) -> Iterator[Comparison]:
    from bsconv.experiments.data import load_dataset

    dataset = load_dataset(arguments.dataset, arguments.data)
    total = len(dataset.train_images)
    images = total if arguments.whole else min(arguments.images, total)
    published = "published" not in arguments.without
    if published and not is_installed():
        print(f"training: without the published script; {ADVICE}")
        published = False
    with tempfile.TemporaryDirectory() as folder:
        if published:
            write_cifar10_folder(
                Path(folder), dataset.limited(train=images, test=arguments.batch_size)
            )
        for model in arguments.models:
            yield _compare(model, arguments, images, total, folder if published else None)


def _compare(
    model: str, arguments: argparse.Namespace, images: int, total: int, folder: str | None
) -> Comparison:
    from bsconv.pytorch.models import parse_name

    dense = arguments.dense or str(parse_name(model).dense)
    is_published = folder is not None and ":" not in model  # its script knows names alone

    def epoch(figures: dict[str, Any]) -> float:
        """Seconds of an epoch of all images, whose start takes no longer than this one's."""
        startup = float(figures["startup"])
        return startup + (float(figures["seconds"]) - startup) * total / images

    with contextlib.ExitStack() as processes:
        contenders: dict[str, Contender] = {}

        def enter(name: str, module: str, **more: Any) -> None:
            contender = Contender(module, arguments.threads, **more)
            contenders[name] = processes.enter_context(contender)

        common = {"device": arguments.device, "batch_size": arguments.batch_size}
        if is_published:
            more = {"folder": folder, "workers": arguments.workers, **common}
            enter("published", "training_published", model=model, **more)
        enter("ours", "training_ours", **our_arguments(arguments, model, images))
        if "dense" not in arguments.without and dense != model:
            enter("dense", "training_ours", **our_arguments(arguments, dense, images))
        seconds = seconds_in_turns(contenders, arguments.rounds, epoch)
        notes = {name: _notes(contender) for name, contender in contenders.items()}
    what = f"training epoch of {model}, {total:,} images"
    if images < total:
        what += f" (measured on {images:,})"
    return Comparison(what, seconds, notes=notes)


def our_arguments(arguments: argparse.Namespace, model: str, images: int) -> dict[str, Any]:
    """What ``training_ours`` needs to know."""
    names = ("dataset", "data", "recipe", "batch_size", "device", "untuned")
    return {"model": model, "images": images, **{name: getattr(arguments, name) for name in names}}


def _notes(contender: Contender) -> str:
    """The time before the first counted epoch, and how the steps were computed."""
    start = f"started within {contender.first_seconds:.0f} s"
    return ", ".join(filter(None, [start, contender.last.get("how")]))
