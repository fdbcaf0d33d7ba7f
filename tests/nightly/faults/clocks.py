"""Clocks that jump forwards and backwards while a run is under way."""

from __future__ import annotations

import contextlib
import io
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import tqdm.std

from bsconv.experiments.config import TrainConfig
from bsconv.experiments.training import train

from ..runs import check_same

CLOCKS = ((time, "time"), (time, "monotonic"), (time, "perf_counter"), (tqdm.std, "time"))
YEAR = 365 * 24 * 3600.0


class Terminal(io.StringIO):
    """Where progress bars, which look at the clock most, are drawn."""

    def isatty(self) -> bool:
        return True


def while_training(folder: Path, config: TrainConfig, seed: int) -> dict[str, int]:
    """Train with and without; AssertionError where that makes a difference."""
    straight, jumped = (replace(config, out=str(folder / name)) for name in ("straight", "jumped"))
    train(straight, progress=False)
    drawn = Terminal()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(sys, "stderr", drawn),
        jumping(seed) as looks,
    ):
        train(jumped)
    if "epoch 1/" not in drawn.getvalue():
        raise AssertionError("no progress bar was drawn")
    check_same(folder / "straight", folder / "jumped")
    return {"looks": len(looks)}


@contextlib.contextmanager
def jumping(seed: int) -> Iterator[list[str]]:
    """Every look at a clock finds it up to a year off, either way; the looks are listed."""
    chance, looks = random.Random(seed), list[str]()

    def wrong(name: str, plain: Callable[[], float]) -> Callable[[], float]:
        def clock() -> float:
            looks.append(name)
            return plain() + chance.uniform(-YEAR, YEAR)

        return clock

    with contextlib.ExitStack() as stack:
        for place, name in CLOCKS:
            clock = wrong(name, getattr(place, name))
            stack.enter_context(mock.patch.object(place, name, clock))
        yield looks
