"""Put the weights of finished runs into the package, for ``get_model(..., pretrained=...)``."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import torch
from torch import nn

import bsconv

from ...pytorch.models import parse_name
from ..data import ImageDataset
from ..files.checkpoints import load_weights, read_trained, write_atomically, write_trained
from ..training import evaluate, make_model
from ._record import Record

__all__ = ["pack_weights"]

FOLDER = Path(bsconv.__file__).parent / "weights"

MOST_POINTS_LOST = 0.05  # of accuracy, by rounding the weights to float16


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
