"""Records of runs that were never trained."""

import dataclasses
from typing import Any

from bsconv.experiments.results import Record
from bsconv.experiments.training import EpochMetrics, TrainConfig


def epochs(*top1: float) -> tuple[EpochMetrics, ...]:
    return tuple(EpochMetrics(n, 2.0 / n, value, 0.1, 1.5) for n, value in enumerate(top1, 1))


def record(*top1: float, **changes: Any) -> Record:
    """Of a run with these accuracies; ``changes`` are settings, or what else a record holds."""
    top1 = top1 or (40.0, 60.0, 55.0)
    own = {name: changes.pop(name) for name in list(changes) if name in Record.__annotations__}
    config = TrainConfig(epochs=len(top1), recipe="fast", device="cpu").resolved()
    values: dict[str, Any] = {
        "config": dataclasses.replace(config, **changes),
        "parameters": 46_480,
        "epochs": epochs(*top1),
        "machine": "2 CPU cores",
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "date": "2026-01-31",
    }
    return Record(**(values | own))
