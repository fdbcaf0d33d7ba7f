"""Seconds of several contenders that take turns, round by round."""

from __future__ import annotations

import math
import operator
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from bsconv.pytorch._tools.timing import synchronize

Work = Callable[[], object]
Stopwatch = Callable[[Work], float]

BUDGET = 30.0  # seconds of measuring, unless the number of rounds is given
FEWEST, MOST = 5, 50  # rounds
TURN = 0.05  # seconds that a turn lasts at least


def stopwatch_of(device: torch.device) -> Stopwatch:
    """Takes the seconds of one call, the device's work awaited before and after it."""

    def seconds_of(work: Work) -> float:
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        return time.perf_counter() - start

    return seconds_of


def measure_in_turns(
    contenders: Sequence[Work],
    seconds_of: Stopwatch,
    rounds: int | None = None,
    done: Callable[[float], object] = lambda share: None,
) -> list[tuple[float, ...]]:
    """For each contender the seconds of one call, in each round.

    Each has a turn in every round, and every other round goes through them backwards: a machine
    that slows down meets all alike. A call of each comes before, which warms up, and one more of
    those below 50 ms. A turn is as many calls as 50 ms hold, one at least, of which the mean
    counts. ``rounds=None``: as many as 30 seconds hold, 5 to 50. ``done`` is told after each round
    which share of all it was.
    """
    if rounds is not None and rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    about = [seconds_of(work) for work in contenders]
    for index, took in enumerate(about):
        if took < TURN:
            about[index] = seconds_of(contenders[index])
    calls = [max(1, math.ceil(TURN / max(took, 1e-6))) for took in about]
    if rounds is None:
        one_round = sum(map(operator.mul, calls, about))
        rounds = min(MOST, max(FEWEST, int(BUDGET / max(one_round, 1e-6))))
    taken: list[list[float]] = [[] for _ in contenders]
    order = range(len(contenders))
    for number in range(rounds):
        for index in order if number % 2 == 0 else reversed(order):
            turn = [seconds_of(contenders[index]) for _ in range(calls[index])]
            taken[index].append(statistics.fmean(turn))
        done(1 / rounds)
    return [tuple(seconds) for seconds in taken]
