"""A process that replaces the convolutions of a fresh torchvision model at each turn."""

from __future__ import annotations

import functools

from .published import become_published
from .turns import Turns, given_arguments, stopwatch


def main() -> None:
    given = given_arguments()
    turns = Turns()
    turns.wait()
    if given["published"]:
        become_published()
    import torchvision

    import bsconv.pytorch

    replacer = getattr(bsconv.pytorch, f"BSConv{given['variant']}_Replacer")
    while True:
        model = getattr(torchvision.models, given["model"])()
        turns.report(seconds=stopwatch(functools.partial(replacer().apply, model)))
        turns.wait()


if __name__ == "__main__":
    main()
