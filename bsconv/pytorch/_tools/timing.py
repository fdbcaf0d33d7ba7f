"""Seconds that alternatives for the same work take, measured in turns: the only stopwatch."""

import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

Name = TypeVar("Name")
Work = Callable[[], object]

FEWEST_ROUNDS, MOST_ROUNDS = 3, 50
SETTLE = 0.03  # seconds in which threads of another engine may go on spinning after its call


def in_turns(
    contenders: Mapping[Name, Work],
    device: torch.device,
    *,
    rounds: int | None = None,
    budget: float | None = None,
    turn: float = 0.0,
    settle: float = 0.0,
    seconds_of: Callable[[Work], float] | None = None,
    after_round: Callable[[int, int], object] | None = None,
) -> dict[Name, list[float]]:
    """The seconds of one call of each contender, in each round; a call of each warms up.

    Every other round goes through them backwards: a machine that slows down meets all of them. A
    turn is as many calls as ``turn`` seconds hold, at least one, and their mean counts; calls of
    ``settle`` seconds come before them, in which threads of the one before may still spin. There
    are ``rounds`` rounds, or as many as ``budget`` seconds hold, from 3 to 50. ``seconds_of``
    measures one call in place of the clock, ``after_round`` is told how many rounds are done and
    planned.

    Raises ValueError unless ``rounds`` is at least 1, or a ``budget`` is given in its place.
    """
    if rounds is None and budget is None:
        raise ValueError("in_turns needs rounds or a budget, got neither")
    if rounds is not None and rounds < 1:
        raise ValueError(f"rounds needs to be at least 1, got {rounds}")
    clock = seconds_of or functools.partial(_seconds, device)
    calls = {}
    for name, work in contenders.items():
        seconds = clock(work)
        if seconds < turn:  # the first call is not a guide for the number of calls
            seconds = clock(work)
        calls[name] = max(1, math.ceil(turn / max(seconds, 1e-6)))
    taken: dict[Name, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    start, done, planned = time.perf_counter(), 0, rounds or MOST_ROUNDS
    while done < planned:
        for name in names:
            settled = time.perf_counter() + settle
            while settle and time.perf_counter() < settled:
                clock(contenders[name])
            seconds = statistics.fmean(clock(contenders[name]) for _ in range(calls[name]))
            taken[name].append(seconds)
        names.reverse()
        done += 1
        if budget is not None and rounds is None:
            spent = time.perf_counter() - start
            affordable = int(budget * done / max(spent, 1e-6))
            planned = max(done, FEWEST_ROUNDS, min(MOST_ROUNDS, affordable))
        if after_round is not None:
            after_round(done, planned)
    return taken


def medians(taken: Mapping[Name, list[float]]) -> dict[Name, float]:
    """The median of each contender's seconds."""
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _seconds(device: torch.device, work: Work) -> float:
    """Of one call, the device's work awaited before and after it."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
