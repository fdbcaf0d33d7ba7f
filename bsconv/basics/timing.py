"""Seconds that alternatives for the same work take, measured in turns: the only stopwatch."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Name = TypeVar("Name")
Work = Callable[[], object]

FEWEST_ROUNDS, MOST_ROUNDS = 3, 50
SETTLE = 0.03  # seconds in which threads of another engine may go on spinning after its call


def in_turns(
    contenders: Mapping[Name, Work],
    device: "torch.device",
    *,
    rounds: int | None = None,  # or as many as ``budget`` seconds hold
    budget: float = 0.0,
    turn: float = 0.0,  # is as many calls as this many seconds hold; their mean counts
    settle: float = 0.0,  # seconds of calls before a turn, in which other threads may still spin
    seconds_of: Callable[[Work], float] | None = None,  # measures a call in place of the clock
) -> dict[Name, list[float]]:
    """The seconds of one call of each contender, in each round; calls that warm up come first."""
    if rounds is not None and rounds < 1:
        raise ValueError(f"rounds needs to be at least 1, got {rounds}")

    def on_the_clock(work: Work) -> float:
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        return time.perf_counter() - start

    measure = seconds_of or on_the_clock
    calls = {}
    for name, work in contenders.items():
        seconds = measure(work)
        if seconds < turn:  # the first call is not a guide for the number of calls
            seconds = measure(work)
        calls[name] = max(1, math.ceil(turn / max(seconds, 1e-6)))
    taken: dict[Name, list[float]] = {name: [] for name in contenders}
    start, done, planned = time.perf_counter(), 0, rounds or MOST_ROUNDS
    while done < planned:
        for name in list(taken)[:: -1 if done % 2 else 1]:  # a machine that slows down meets all
            settled = time.perf_counter() + settle
            while settle and time.perf_counter() < settled:
                measure(contenders[name])
            seconds = statistics.fmean(measure(contenders[name]) for _ in range(calls[name]))
            taken[name].append(seconds)
        done += 1
        if rounds is None:
            affordable = int(budget * done / max(time.perf_counter() - start, 1e-6))
            planned = max(done, FEWEST_ROUNDS, min(MOST_ROUNDS, affordable))
    return taken


def medians(taken: Mapping[Name, list[float]]) -> dict[Name, float]:
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def synchronize(device: "torch.device") -> None:
    if device.type == "cuda":
        import torch  # not above: commands show their help without it

        torch.cuda.synchronize(device)
