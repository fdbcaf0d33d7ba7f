"""Records of finished runs: measured once, kept in ``results/`` for everyone to compare with."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...basics.files import project_folder
from ..config import TrainConfig
from ..files.json_files import holding, read_json
from ..training import EpochMetrics

FORMAT = "bsconv record 1"
# how steps are computed: they change the speed, and the result by rounding only
EXECUTION = ("device", "compile", "plan", "precision")
# what runs did before these settings existed, which their records lack
BEFORE = {"compile": False, "plan": "factored", "precision": "float32", "optimizer": "sgd"}
# the recipe "fast" as it was when older records were made
FAST_SGD = {"optimizer": "sgd", "learning_rate": 0.3, "momentum": 0.9, "weight_decay": 5e-4}


@dataclass(frozen=True)
class Record:
    """A finished run: its settings, what it measured after every epoch, and on what.

    ``config`` names no folders. ``versions`` are those of python, torch, torchvision and bsconv,
    ``date`` is the day on which the run ended, as 2026-01-31, and ``commit`` the code that it ran.
    """

    config: TrainConfig
    parameters: int
    epochs: tuple[EpochMetrics, ...]
    machine: str  # its class in words; no host name
    versions: Mapping[str, str]
    date: str
    commit: str | None = None
    note: str = ""

    def __post_init__(self) -> None:
        found = [metrics.epoch for metrics in self.epochs]
        if found != list(range(1, self.config.epochs + 1)):
            raise ValueError(f"epochs needs to be 1 to {self.config.epochs}, got {found}")
        if not all(0 <= metrics.test_top1 <= 100 for metrics in self.epochs):
            raise ValueError("test_top1 needs to be 0 to 100 percent in every epoch")
        if not isinstance(self.parameters, int) or self.parameters < 1:
            raise ValueError(f"parameters needs to be a whole number >= 1, got {self.parameters!r}")
        if not str(self.machine).strip():
            raise ValueError(f"machine needs to say in words what it is, got {self.machine!r}")
        datetime.date.fromisoformat(self.date)

    @property
    def seed(self) -> int:
        return self.config.seed

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Record:
        """What a file holds; ValueError, TypeError or KeyError for anything but a record."""
        config = TrainConfig.from_dict(BEFORE | values["config"])
        epochs = tuple(EpochMetrics(**row) for row in values["epochs"])
        return cls(**values | {"config": config, "epochs": epochs})


def deciding(config: TrainConfig) -> TrainConfig:
    """The same for runs that differ only in seed, folders and execution."""
    same = {name: getattr(TrainConfig, name) for name in ("seed", "data", "out", *EXECUTION)}
    return dataclasses.replace(config.resolved(), **same)


def recipe_of(config: TrainConfig) -> tuple[str, dict[str, Any]]:
    """The recipe closest to the run, today's or a former one, and the settings that differ from it:
    model, data, length and seed do not belong to the recipe."""
    free = ("model", "dataset", "bsconv", "p", "with_bn", "epochs")
    kept = {name: getattr(config, name) for name in (*free, "recipe")}
    today = dataclasses.asdict(deciding(TrainConfig(**kept)))
    recipes = {config.recipe: today}
    if config.recipe == "fast":
        recipes["fast (SGD)"] = today | FAST_SGD
    mine = dataclasses.asdict(deciding(config))
    others = {
        label: {name: value for name, value in mine.items() if value != usual[name]}
        for label, usual in recipes.items()
    }
    label = min(others, key=lambda label: len(others[label]))
    return label, others[label]


def results_folder() -> Path:
    """``results/`` of the working directory; notebooks find the one next to ``notebooks/``."""
    return project_folder("results")


def load_records(folder: str | Path | None = None) -> list[Record]:
    """All records in ``folder``, by file name; by default those of the project, if there are any.

    ValueError names a file that holds no record.
    """
    records = []
    for path in sorted(Path(folder or results_folder()).glob("*.json")):
        with holding("record of a run", path):
            records.append(Record.from_dict(read_json(path, FORMAT)))
    return records
