"""Records of finished runs: measured once, kept in ``results/`` for everyone to compare with.

usage: python -m bsconv.experiments.results RUN [RUN ...] --machine "2 CPU cores (x86-64)"
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import bsconv

from ._setup import make_model
from .checkpoints import CONFIG, METRICS, MODEL, read_config, read_trained, write_atomically
from .config import TrainConfig
from .data import DATASETS
from .history import EpochMetrics

__all__ = [
    "Record",
    "Summary",
    "load_records",
    "make_record",
    "results_folder",
    "summarize",
    "write_record",
]

FORMAT = "bsconv record 1"


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
        if [metrics.epoch for metrics in self.epochs] != list(range(1, self.config.epochs + 1)):
            raise ValueError(
                f"epochs must be 1 to {self.config.epochs}, "
                f"got {[metrics.epoch for metrics in self.epochs]}"
            )
        if not all(0 <= metrics.test_top1 <= 100 for metrics in self.epochs):
            raise ValueError("test_top1 must be in 0 to 100 percent, in every epoch")
        if not isinstance(self.parameters, int) or self.parameters < 1:
            raise ValueError(f"parameters must be a whole number >= 1, got {self.parameters!r}")
        if not isinstance(self.machine, str) or not self.machine.strip():
            raise ValueError(f"machine must say in words what it is, got {self.machine!r}")
        datetime.date.fromisoformat(self.date)

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def last_top1(self) -> float:
        """Test accuracy after the last epoch, in percent."""
        return self.epochs[-1].test_top1

    @property
    def best_top1(self) -> float:
        """The highest of all epochs: chosen by looking at the test set, so a little too good."""
        return max(metrics.test_top1 for metrics in self.epochs)

    @property
    def name(self) -> str:
        """Data, model, schedule and seed, then each setting that is not the recipe's own."""
        config = self.config.resolved()
        usual = TrainConfig(
            config.model,
            config.dataset,
            epochs=config.epochs,
            recipe=config.recipe,
            seed=config.seed,
            device=config.device,
        ).resolved()
        parts = [config.dataset, config.model, config.recipe, f"{config.epochs}epochs"]
        for name, value in dataclasses.asdict(config).items():
            if value != getattr(usual, name):
                parts.append(f"{name}{value}")
        parts.append(f"seed{config.seed}")
        if not config.device.startswith("cpu"):
            parts.append(config.device)
        return re.sub(r"[^\w.-]+", "_", "-".join(parts))

    def to_json(self) -> str:
        """One line for each entry, and for each epoch."""
        values = dataclasses.asdict(self)
        del values["config"]["data"], values["config"]["out"]
        epochs = ",\n".join("    " + json.dumps(row) for row in values["epochs"])
        entries = [
            f"  {json.dumps(name)}: "
            + (f"[\n{epochs}\n  ]" if name == "epochs" else json.dumps(value))
            for name, value in {"format": FORMAT, **values}.items()
        ]
        return "{\n" + ",\n".join(entries) + "\n}\n"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """The inverse of ``to_json``, read; ValueError, TypeError or KeyError for anything else."""
        if values["format"] != FORMAT:
            raise ValueError(f"format must be {FORMAT!r}, got {values['format']!r}")
        rest = {name: value for name, value in values.items() if name != "format"}
        rest["config"] = TrainConfig.from_dict(values["config"])
        rest["epochs"] = tuple(EpochMetrics(**row) for row in values["epochs"])
        return cls(**rest)


@dataclass(frozen=True)
class Summary:
    """Last-epoch accuracies of runs that differ in seed, device and machine alone.

    ``config`` is the one of the first of them.
    """

    config: TrainConfig
    parameters: int
    runs: tuple[Record, ...]

    @property
    def top1(self) -> list[float]:
        return [run.last_top1 for run in self.runs]

    @property
    def mean(self) -> float:
        return sum(self.top1) / len(self.top1)

    @property
    def lowest(self) -> float:
        return min(self.top1)

    @property
    def highest(self) -> float:
        return max(self.top1)

    @property
    def network(self) -> str:
        """The model, and what its convolutions were replaced by, if they were."""
        config = self.config
        if config.bsconv is None:
            return config.model
        share = f", p = {Fraction(config.p).limit_denominator(100)}" if config.bsconv == "s" else ""
        norm = ", with BatchNorm" if config.with_bn else ""
        return f"{config.model} as BSConv-{config.bsconv.upper()}{share}{norm}"

    @property
    def schedule(self) -> str:
        """How long the runs are, and what is not usual: fewer images, start, precision."""
        config = self.config
        images = f" of {config.train_limit:,} images" if config.train_limit else ""
        start = "" if config.init == TrainConfig.init else f", init {config.init}"
        if config.weights is not None:
            start = f", from {Path(config.weights).stem.replace('_', ' ')}"
        precision = "" if config.precision == TrainConfig.precision else f", {config.precision}"
        epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs} epochs"
        return f"{epochs}{images}{start}{precision}"

    def __str__(self) -> str:
        seeds = "1 run" if len(self.runs) == 1 else f"{len(self.runs)} runs"
        return (
            f"{self.network} on {self.config.dataset}, recipe {self.config.recipe}, "
            f"{self.schedule}: {self.mean:.2f} % "
            f"({self.lowest:.2f} to {self.highest:.2f}, {seeds})"
        )


def make_record(
    run_folder: str | Path, *, machine: str, note: str = "", commit: str | None = None
) -> Record:
    """The record of a finished run, made with the versions that trained it.

    ``machine`` says in words what it ran on, such as "2 CPU cores (x86-64)"; ``note`` what else one
    should know; ``commit`` is the short hash of the code that ran. ValueError where the run is not
    finished.
    """
    folder = Path(run_folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"the run folder {folder} does not exist")
    config = read_config(folder / CONFIG)
    path = folder / METRICS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        epochs = tuple(EpochMetrics(**json.loads(line)) for line in lines)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no epochs of bsconv train: {error}") from error
    if len(epochs) < config.epochs or not (folder / MODEL).exists():
        raise ValueError(
            f"the run in {folder} is not finished: {len(epochs)} of {config.epochs} epochs; "
            "go on with bsconv train --resume"
        )
    dataset = config.dataset if config.dataset in DATASETS else Path(config.dataset).name
    ended = datetime.datetime.fromtimestamp((folder / MODEL).stat().st_mtime, datetime.timezone.utc)
    return Record(
        config=dataclasses.replace(config.resolved().without_folders(), dataset=dataset),
        parameters=_count_parameters(folder),
        epochs=epochs,
        machine=machine,
        versions={
            "python": platform.python_version(),
            "torch": metadata.version("torch"),
            "torchvision": metadata.version("torchvision"),
            "bsconv": bsconv.__version__,
        },
        date=ended.date().isoformat(),
        commit=commit,
        note=note,
    )


def write_record(record: Record, folder: str | Path) -> Path:
    """Write ``FOLDER/NAME.json``; FileExistsError where another run's record has that name."""
    path = Path(folder) / f"{record.name}.json"
    content = record.to_json().encode()
    if path.exists() and path.read_bytes() != content:
        raise FileExistsError(f"{path} already holds another record; remove or rename it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def results_folder() -> Path:
    """``results/`` of the working directory; notebooks in ``notebooks/`` find the one beside it."""
    here = Path.cwd()
    if here.name == "notebooks" and not (here / "results").is_dir():
        here = here.parent
    return here / "results"


def load_records(folder: str | Path | None = None) -> list[Record]:
    """All records in ``folder``, by file name; by default those of the project, if there are any.

    ValueError names a file that holds no record.
    """
    if folder is not None and not Path(folder).is_dir():
        raise FileNotFoundError(f"the folder of records {folder} does not exist")
    records = []
    for path in sorted(Path(folder or results_folder()).glob("*.json")):
        try:
            records.append(Record.from_dict(json.loads(path.read_text(encoding="utf-8"))))
        except KeyError as error:
            raise ValueError(f"{path} holds no record of a run: it lacks {error}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} holds no record of a run: {error}") from error
    return records


def summarize(records: Iterable[Record]) -> list[Summary]:
    """One summary for each model, data set and schedule, in the order in which they first come."""
    groups: dict[TrainConfig, list[Record]] = {}
    for record in records:
        key = dataclasses.replace(record.config.resolved(), seed=0, device="cpu")
        groups.setdefault(key, []).append(record)
    return [Summary(runs[0].config, runs[0].parameters, tuple(runs)) for runs in groups.values()]


def _count_parameters(folder: Path) -> int:
    """Of the trained model, which is built without numbers: buffers are no parameters."""
    trained = read_trained(folder / MODEL)
    with torch.device("meta"):
        model = make_model(trained.config, trained.num_classes)
    return sum(parameter.numel() for parameter in model.parameters())


def main(argv: Sequence[str] | None = None) -> int:
    """Make records of finished runs; the exit code is 0, or 2 for bad input."""
    parser = argparse.ArgumentParser("python -m bsconv.experiments.results", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="--out of bsconv train")
    parser.add_argument("--machine", required=True, help="what the runs ran on, in words")
    parser.add_argument("--note", default="", help="what else one should know about the runs")
    parser.add_argument("--commit", help="short hash of the code that ran")
    parser.add_argument("--out", type=Path, default="results", help="default: results")
    given = parser.parse_args(argv)
    try:
        records = [
            make_record(run, machine=given.machine, note=given.note, commit=given.commit)
            for run in given.runs
        ]
        for record in records:
            print(write_record(record, given.out))
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
