"""Pickles that call a function, wherever the package reads a file."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bsconv.experiments.data._archives import ARRAYS
from bsconv.experiments.files.checkpoints import CHECKPOINT, CONFIG, FORMAT, METRICS, MODEL
from bsconv.experiments.results import make_record
from bsconv.experiments.results.training_spectra import TrainingSpectra

from .traps import SPRUNG, Trap, bsconv, make_folder, source

Case = Callable[[Path], object]

CALLS: dict[str, Callable[[Path], Any]] = {
    "os.mkdir": make_folder,
    "os.system": lambda folder: Trap(os.system, f"mkdir {folder / SPRUNG}"),
    "subprocess": lambda folder: Trap(subprocess.check_call, ["mkdir", str(folder / SPRUNG)]),
    "eval": lambda folder: Trap(eval, source(folder)),
    "exec": lambda folder: Trap(exec, source(folder)),
    "pickle.loads": lambda folder: Trap(pickle.loads, pickle.dumps(make_folder(folder))),
    "an object array": lambda folder: np.array([make_folder(folder)], dtype=object),
    "__setstate__": lambda folder: WithState(folder),
}


class WithState:
    """Unpickling it calls a method with the state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __setstate__(self, state: dict[str, Any]) -> None:
        os.mkdir(state["folder"] / SPRUNG)


def evaluate(path: Path) -> None:
    bsconv("evaluate", "--checkpoint", path, "--dataset", "synthetic")


def resume(folder: Path) -> None:
    bsconv("train", "--model", "cifar_resnet20", "--out", folder, "--resume")


def weights(path: Path) -> None:
    bsconv("evaluate", "--model", "cifar_resnet20", "--weights", path, "--dataset", "synthetic")


def _saved(call: str, **settings: Any) -> Case:
    """Where a checkpoint of ours has its model."""

    def case(folder: Path) -> None:
        path = folder / CHECKPOINT
        torch.save({"format": FORMAT, "model": CALLS[call](folder)}, path, **settings)
        evaluate(path)

    return case


def _plain(name: str, read: Callable[[Path], None], protocol: int = 2) -> Case:
    """A file that is a pickle and no more, under the name of another format."""

    def case(folder: Path) -> None:
        (folder / name).write_bytes(pickle.dumps(make_folder(folder), protocol))
        read(folder / name)

    return case


def _by_opcode(folder: Path) -> None:
    """INST calls without a REDUCE."""
    path = folder / CHECKPOINT
    path.write_bytes(b"(S'" + str(folder / SPRUNG).encode() + b"'\nios\nmkdir\n.")
    evaluate(path)


def _object_array(folder: Path) -> None:
    trap = np.array([make_folder(folder)] * 10, dtype=object)
    parts: dict[str, Any] = dict.fromkeys(ARRAYS, trap)
    np.savez(folder / "cifar10.npz", **parts)
    bsconv("data", "cifar10", "--data", folder)


def _module(folder: Path) -> None:
    """A whole network, as torch.save keeps one."""
    torch.save(torch.nn.Conv2d(3, 4, 3), folder / "network.pt")
    weights(folder / "network.pt")


def _in_a_run(name: str, read: Callable[[Path], object]) -> Case:
    """A pickle in the place of one file in the folder of a run."""

    def case(folder: Path) -> None:
        (folder / CONFIG).write_text('{"model": "cifar_resnet20", "epochs": 1}')
        (folder / name).write_bytes(pickle.dumps(make_folder(folder)))
        read(folder)

    return case


CASES: dict[str, Case] = {
    **{f"checkpoint.pt that calls {call}": _saved(call) for call in CALLS},
    "checkpoint.pt of old versions of torch": _saved(
        "os.mkdir", _use_new_zipfile_serialization=False
    ),
    "checkpoint.pt that is a pickle": _plain(CHECKPOINT, evaluate),
    "checkpoint.pt that is a pickle of protocol 0": _plain(CHECKPOINT, evaluate, 0),
    "checkpoint.pt that calls by INST": _by_opcode,
    "model.safetensors that is a pickle": _plain(MODEL, evaluate),
    "weights.pt that are a pickle": _plain("weights.pt", weights),
    "weights.pth that are a pickle": _plain("weights.pth", weights),
    "weights.safetensors that are a pickle": _plain("weights.safetensors", weights),
    "weights.pt that are a network": _module,
    "cifar10.npz that is a pickle": _plain(
        "cifar10.npz", lambda path: bsconv("data", "cifar10", "--data", path.parent)
    ),
    "cifar10.npz of objects": _object_array,
    "config.json that is a pickle": _in_a_run(CONFIG, resume),
    "metrics.jsonl that is a pickle": _in_a_run(
        METRICS, lambda folder: make_record(folder, machine="a machine")
    ),
    "record.json that is a pickle": _plain(
        "record.json", lambda path: bsconv("results", "--results", path.parent)
    ),
    "spectra.json that is a pickle": _plain(
        "spectra.json", lambda path: (TrainingSpectra.read(path), None)[1]
    ),
    "an image that is a pickle": _plain(
        "0.png", lambda path: bsconv("train", "--model", "cifar_resnet20", "--dataset", _pets(path))
    ),
}


def _pets(image: Path) -> Path:
    """A folder of two classes, in which ``image`` is one of the images."""
    folder = image.parent / "pets"
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        (folder / name / "0.png").write_bytes(image.read_bytes())
        (folder / name / "1.png").write_bytes(image.read_bytes())
    return folder
