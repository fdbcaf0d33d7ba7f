"""The orthonormality penalty, forward and backward, as a share of a training step of ours."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

from .contenders import Contender
from .timing import Comparison
from .training import add_training_arguments, our_arguments

MODEL = "cifar_resnet56_bsconvs_p1d4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=MODEL)
    add_training_arguments(parser)
    parser.set_defaults(images=2560)


def run(arguments: argparse.Namespace) -> Iterator[Comparison]:
    steps = math.ceil(arguments.images / arguments.batch_size)
    given = our_arguments(arguments, arguments.model, arguments.images)
    with Contender("training_ours", arguments.threads, penalty=True, **given) as contender:
        contender.turn()
        turns = [contender.turn() for _ in range(arguments.rounds)]
        seconds = {
            "step": [float(figures["seconds"]) / steps for figures in turns],
            # measured right after each epoch, with its weights
            "reg_loss": [float(figures["penalty"]) for figures in turns],
        }
        notes = {"step": contender.last["how"]}
    what = f"penalty in a training step of {arguments.model}, batch {arguments.batch_size}"
    yield Comparison(what, seconds, reference="step", notes=notes)
