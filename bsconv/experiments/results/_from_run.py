"""From the folder of a finished run to its record, and to weights for ``get_model``."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

import bsconv

from ...pytorch.models import parse_name
from ..data import DATASETS, ImageDataset
from ..files.checkpoints import (
    CONFIG,
    METRICS,
    MODEL,
    load_weights,
    read_config,
    read_trained,
    write_atomically,
    write_trained,
)
from ..files.json_files import parse_json, read_text
from ..training import EpochMetrics, evaluate, make_model
from ._record import EXECUTION, Record

FOLDER = Path(bsconv.__file__).parent / "weights"

MOST_POINTS_LOST = 0.05  # of accuracy, by rounding the weights to float16


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
    config = read_config(folder / CONFIG)
    path = folder / METRICS
    try:
        lines = read_text(path).splitlines()
        epochs = tuple(EpochMetrics(**parse_json(line)) for line in lines)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no epochs of bsconv train: {error}") from error
    if len(epochs) < config.epochs or not (folder / MODEL).exists():
        raise ValueError(
            f"the run in {folder} is not finished: {len(epochs)} of {config.epochs} epochs; "
            "go on with bsconv train --resume"
        )
    trained = read_trained(folder / MODEL)
    with torch.device("meta"):  # only to count its parameters
        model = make_model(trained.config, trained.num_classes)
    chosen = {name: getattr(trained.config, name) for name in EXECUTION}  # at the start of the run
    dataset = config.dataset if config.dataset in DATASETS else Path(config.dataset).name
    ended = datetime.datetime.fromtimestamp((folder / MODEL).stat().st_mtime, datetime.timezone.utc)
    return Record(
        config=dataclasses.replace(config.resolved().without_folders(), dataset=dataset, **chosen),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
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
    model = make_model(trained.config, trained.num_classes)
    load_weights(model, trained.state, run_folder)
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
        **{key: value for key, value in json.loads(record.to_json()).items() if key != "format"},
    }
    write_atomically(path.with_suffix(".json"), (json.dumps(note, indent=1) + "\n").encode())
    return path


def _top1(model: nn.Module, dataset: ImageDataset) -> float:
    model = model.to(memory_format=torch.channels_last)
    return evaluate(model, dataset.test_images, dataset.test_labels)
