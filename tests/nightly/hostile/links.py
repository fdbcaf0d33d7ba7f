"""Folders and archives that lead elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from bsconv.experiments.export import load_exported

from .traps import bsconv


def pets(folder: Path) -> Path:
    """A folder of two classes with three images each."""
    for name in ("cats", "dogs"):
        (folder / "pets" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8)).save(folder / "pets" / name / f"{number}.png")
    return folder / "pets"


def read(dataset: Path) -> None:
    bsconv("train", "--model", "cifar_resnet20", "--dataset", dataset, "--epochs", 1)


def _link(name: str, target: str) -> Callable[[Path], object]:
    def case(folder: Path) -> None:
        outside = folder / "outside"
        outside.mkdir()
        Image.new("RGB", (8, 8)).save(outside / "private.png")
        dataset = pets(folder)
        (dataset / name).symlink_to(target.format(outside=outside))
        read(dataset)

    return case


def _pipe(folder: Path) -> None:
    dataset = pets(folder)
    os.mkfifo(dataset / "cats" / "pipe.png")
    read(dataset)


def _archive(folder: Path) -> None:
    """Nothing is ever unpacked onto the disk; what is missing is said."""
    parts: dict[str, Any] = {"../escaped": np.zeros(3)}
    np.savez(folder / "cifar10.npz", **parts)
    bsconv("data", "cifar10", "--data", folder)


def _weights_elsewhere(folder: Path) -> None:
    """An ONNX file that takes its weights from a file outside of its folder."""
    (folder / "private").write_bytes(bytes(16))
    (folder / "networks").mkdir()
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../private")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    steps = [helper.make_node("Add", ["x", "w"], ["y"])]
    graph = helper.make_graph(steps, "network", values[:1], values[1:], [weights])
    path = folder / "networks" / "network.onnx"
    path.write_bytes(onnx.helper.make_model(graph, ir_version=8).SerializeToString())
    load_exported(path)


CASES: dict[str, Callable[[Path], object]] = {
    "an image that is a link out of the folder": _link(
        "cats/link.png", "../../outside/private.png"
    ),
    "an image that is an absolute link": _link("cats/link.png", "{outside}/private.png"),
    "an image that is a link to a device": _link("cats/link.png", "/dev/zero"),
    "an image that is a link to itself": _link("cats/link.png", "link.png"),
    "an image that is a link to nothing": _link("cats/link.png", "gone.png"),
    "an image that is a pipe": _pipe,
    "a class that is a link out of the folder": _link("birds", "../outside"),
    "a class that is a link to the folder above": _link("birds", ".."),
    "a class that is a link to itself": _link("birds", "birds"),
    "a class that is a link to nothing": _link("birds", "gone"),
    "cifar10.npz with a path out of the folder": _archive,
    "network.onnx with weights elsewhere": _weights_elsewhere,
}
