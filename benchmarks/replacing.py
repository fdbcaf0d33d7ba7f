"""Replacing the convolutions of a torchvision model: ours and the published replacer."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from .contenders import run_in_turns
from .published import ADVICE, is_installed
from .timing import Comparison


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
            given = {
                name: {"model": model, "variant": variant, "published": published}
                for name, published in packages.items()
            }
            seconds, _ = run_in_turns("replacing_child", given, arguments.rounds, arguments.threads)
            yield Comparison(f"replacing by BSConv-{variant} in {model}", seconds)
