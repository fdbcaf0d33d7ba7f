"""What a run has measured, epoch by epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..files.checkpoints import METRICS
from ..files.json_files import holding, parse_json, read_text


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch. ``train_loss`` is the mean over the images of the loss that was minimised,
    so it includes the orthonormality penalty; ``test_top1`` is in percent and knows no penalty;
    ``learning_rate`` is the one of the epoch's last step."""

    epoch: int  # counted from 1
    train_loss: float
    test_top1: float
    learning_rate: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch}: train loss {self.train_loss:.4f}, test top-1 "
            f"{self.test_top1:.2f} %, learning rate {self.learning_rate:.4g}, {self.seconds:.1f} s"
        )


class History(list[EpochMetrics]):
    """The epochs of a run in order, and in ``model`` the network as it is after the last one."""

    def __init__(self, epochs: Iterable[EpochMetrics] = (), model: nn.Module | None = None) -> None:
        super().__init__(epochs)
        self.model = model

    @property
    def last(self) -> EpochMetrics:
        return self[-1]

    @property
    def best(self) -> EpochMetrics:
        """The epoch with the highest test accuracy, the first of equals."""
        return max(self, key=lambda metrics: metrics.test_top1)

    def to_dicts(self) -> list[dict[str, Any]]:
        return [dataclasses.asdict(metrics) for metrics in self]


def read_history(folder: Path) -> History:
    """What the run in ``folder`` has measured so far; ValueError where its file holds no epochs."""
    path = folder / METRICS
    if not path.exists():
        return History()
    with holding("epochs of bsconv train", path):
        return History(EpochMetrics(**parse_json(line)) for line in read_text(path).splitlines())
