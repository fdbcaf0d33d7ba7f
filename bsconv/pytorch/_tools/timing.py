"""Seconds that alternatives for the same work take, measured in turns."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

MOST_ROUNDS = 30


def seconds_in_turns(
    contenders: Mapping[str, Callable[[], object]], device: torch.device, budget: float
) -> dict[str, float]:
    """The median seconds of each contender.

    They take turns, so a machine that slows down meets all alike. There are three rounds at least,
    and as many as ``budget`` seconds hold at most; a first round before them warms up.
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        _seconds(contender, device)
    start = time.perf_counter()
    for done in range(MOST_ROUNDS):
        if done >= 3 and time.perf_counter() - start > budget:
            break
        for name, contender in contenders.items():
            taken[name].append(_seconds(contender, device))
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
