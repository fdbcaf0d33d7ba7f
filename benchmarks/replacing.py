"""Replacing the convolutions of a torchvision model: ours and the published replacer."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator

from .contenders import Contender
from .published import ADVICE, is_installed
from .timing import Comparison, alternate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=("resnet50", "resnet152"), metavar="MODEL")
    parser.add_argument("--variants", nargs="+", default=("U", "S"), choices=("U", "S"))


def run(arguments: argparse.Namespace) -> Iterator[Comparison]:
    packages = {"ours": False}
    if is_installed():
        packages["published"] = True
    else:
        print(f"replacing: without the published replacer; {ADVICE}")
    for model in arguments.models:
        for variant in arguments.variants:
            with contextlib.ExitStack() as processes:
                turns: dict[str, Callable[[], float]] = {}
                for name, published in packages.items():
                    given = {"model": model, "variant": variant, "published": published}
                    contender = Contender("replacing_child", arguments.threads, **given)
                    turns[name] = _seconds_of(processes.enter_context(contender))
                seconds = alternate(turns, arguments.rounds)
            yield Comparison(f"replacing by BSConv-{variant} in {model}", seconds)


def _seconds_of(contender: Contender) -> Callable[[], float]:
    return lambda: float(contender.turn()["seconds"])
