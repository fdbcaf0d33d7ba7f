"""Make records of finished runs, or put their weights into the package.

usage: python results/record.py RUN [RUN ...] --machine "2 CPU cores (x86-64)"

With --weights, they are for ``get_model(..., pretrained=...)``, with the record next to them.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import datetime
import hashlib
import json
import platform
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

import bsconv
from bsconv.basics.errors import one_line
from bsconv.experiments.data import ImageDataset, load_dataset
from bsconv.experiments.files.checkpoints import (
    CONFIG,
    MODEL,
    read_config,
    read_trained,
    write_atomically,
    write_trained,
)
from bsconv.experiments.results import EXECUTION, FORMAT, Record, recipe_of
from bsconv.experiments.training import evaluate, read_history, trained_model
from bsconv.pytorch._tools.model_tree import parameter_count
from bsconv.pytorch.models import parse_name

WEIGHTS = Path(bsconv.__file__).parent / "weights"
MOST_POINTS_LOST = 0.05  # of accuracy, by rounding the weights to float16


def main(argv: Sequence[str] | None = None) -> int:
    """Prints each path written; the exit code is 0, or 2 for bad input."""
    parser = argparse.ArgumentParser("python results/record.py", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="--out of bsconv train")
    parser.add_argument("--machine", required=True, help="what the runs ran on, in words")
    parser.add_argument("--commit", help="short hash of the code that ran")
    parser.add_argument("--note", default="", help="what else one should know about the runs")
    parser.add_argument("--weights", action="store_true", help="pack weights, not records alone")
    parser.add_argument("--data", metavar="DIR", help="where the archives lie (default data)")
    parser.add_argument("--out", type=Path, help="default: results, or the package's own weights")
    given = parser.parse_args(argv)
    about = {"machine": given.machine, "note": given.note, "commit": given.commit}
    try:
        records = [make_record(run, **about) for run in given.runs]
        for run, record in zip(given.runs, records, strict=True):
            if given.weights:
                dataset = load_dataset(record.config.dataset, given.data)
                print(pack_weights(run, dataset, record, given.out or WEIGHTS))
            else:
                print(write_record(record, given.out or Path(__file__).parent))
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {one_line(error, None)}", file=sys.stderr)
        return 2
    return 0


def make_record(
    run_folder: str | Path, *, machine: str, note: str = "", commit: str | None = None
) -> Record:
    """The record of a finished run, made with the versions that trained it.

    ``machine`` says in words what it ran on, such as "2 CPU cores (x86-64)", and ``note`` anything
    else worth knowing; ``commit`` is the short hash of the code that ran. ValueError where the run
    is not finished.
    """
    folder = Path(run_folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"the run folder {folder} does not exist")
    config, epochs = read_config(folder / CONFIG), tuple(read_history(folder))
    if len(epochs) < config.epochs or not (folder / MODEL).exists():
        done = f"{len(epochs)} of {config.epochs} epochs; go on with bsconv train --resume"
        raise ValueError(f"the run in {folder} is not finished: {done}")
    trained = read_trained(folder / MODEL)
    settings: dict[str, Any] = {name: getattr(trained.config, name) for name in EXECUTION}
    for name in ("model", "teacher_model", "dataset"):  # of code and images, without the folder
        value = getattr(config, name)
        settings[name] = value and Path(value).name.replace(".py:", ":")
    libraries = {name: metadata.version(name) for name in ("torch", "torchvision")}
    ended = datetime.datetime.fromtimestamp((folder / MODEL).stat().st_mtime, datetime.timezone.utc)
    return Record(
        config=dataclasses.replace(config.resolved().without_folders(), **settings),
        parameters=parameter_count(trained_model(trained, folder / MODEL)),
        epochs=epochs,
        machine=machine,
        versions={"python": platform.python_version(), **libraries, "bsconv": bsconv.__version__},
        date=ended.date().isoformat(),
        commit=commit,
        note=note,
    )


def write_record(record: Record, folder: str | Path) -> Path:
    """Write ``FOLDER/NAME.json``; FileExistsError where another run's record has that name."""
    path = Path(folder) / f"{name_of(record)}.json"
    content = text_of(record).encode()
    if path.exists() and path.read_bytes() != content:
        raise FileExistsError(f"{path} already holds another record; remove or rename it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def name_of(record: Record) -> str:
    """Data, model, recipe, length, each setting that is not the recipe's own, and the seed.

    Device and precision follow where they are not the CPU's and float32.
    """
    config = record.config
    recipe, others = recipe_of(config)
    parts = [config.dataset, config.model, recipe, f"{config.epochs}epochs"]
    if config.bsconv is not None:
        parts.append(f"bsconv{config.bsconv}")
        parts += [f"p{config.p}"] if config.bsconv == "s" else []
        parts += ["with_bn"] if config.with_bn else []
    parts += [f"{name}{value}" for name, value in others.items()]
    parts.append(f"seed{config.seed}")
    parts += [] if config.device.startswith("cpu") else [config.device]
    parts += ["bfloat16"] if config.precision == "bfloat16" else []
    return "-".join(re.sub(r"[^\w.-]+", "_", part).strip("_") for part in parts)


def text_of(record: Record) -> str:
    """In JSON: one line for each entry, and for each epoch."""
    values = dataclasses.asdict(record)
    del values["config"]["data"], values["config"]["out"]
    entries = {name: json.dumps(value) for name, value in {"format": FORMAT, **values}.items()}
    epochs = ",\n".join(f"    {json.dumps(row)}" for row in values["epochs"])
    entries["epochs"] = f"[\n{epochs}\n  ]"
    lines = ",\n".join(f'  "{name}": {value}' for name, value in entries.items())
    return f"{{\n{lines}\n}}\n"


def pack_weights(run_folder: Path, dataset: ImageDataset, record: Record, folder: Path) -> Path:
    """Write ``FOLDER/DATASET/MODEL.safetensors`` and a note next to it; returns the file's path.

    Weights are rounded to float16 where that costs less than 0.05 points of accuracy on the test
    images of ``dataset``. The note, ``MODEL.json``, holds the SHA-256 checksum of the file, the
    accuracy measured with it, and what ``record`` says of the run. ValueError where ``get_model``
    has no name for the network that was trained.
    """
    parse_name(record.config.model)
    if record.config.bsconv is not None:
        raise ValueError(
            "weights for get_model need a run of a model that it names, such as "
            f"cifar_resnet20_bsconvu, got {record.config.model} with "
            f"bsconv={record.config.bsconv!r}"
        )
    trained = read_trained(run_folder)
    model = trained_model(trained, run_folder)
    rounded = copy.deepcopy(model).half()
    before, after = _top1(model, dataset), _top1(copy.deepcopy(rounded).float(), dataset)
    kept = rounded if abs(before - after) < MOST_POINTS_LOST else model
    path = folder / record.config.dataset / f"{record.config.model.lower()}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_trained(path, kept, record.config, trained.num_classes)
    note = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "num_classes": trained.num_classes,
        "test_top1": after if kept is rounded else before,
        "test_top1_in_float32": before,
        "dtype": "float16" if kept is rounded else "float32",
        **{key: value for key, value in json.loads(text_of(record)).items() if key != "format"},
    }
    write_atomically(path.with_suffix(".json"), (json.dumps(note, indent=1) + "\n").encode())
    return path


def _top1(model: nn.Module, dataset: ImageDataset) -> float:
    model = model.to(memory_format=torch.channels_last)
    return evaluate(model, dataset.test_images, dataset.test_labels)


if __name__ == "__main__":
    sys.exit(main())
