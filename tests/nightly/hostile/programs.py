"""Exported programs that ask for more than operators, and networks in other files."""

from __future__ import annotations

import functools
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from bsconv.experiments.export import export_model
from bsconv.experiments.export._run import load_exported

from .traps import SPRUNG, make_folder, source

PROGRAM = "archive/models/model.json"
Members = dict[str, bytes]


@functools.cache
def _exported(path: Path) -> Members:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    example = torch.zeros(2, 3, 8, 8)
    export_model(network, example, path, format="exported-program", dynamic_batch=True)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _case(change: Callable[[Members, Path], None]) -> Callable[[Path], object]:
    """A program that export_model wrote, with a change."""

    def case(folder: Path) -> None:
        members = dict(_exported(folder / "network.pt2"))
        change(members, folder)
        with zipfile.ZipFile(folder / "network.pt2", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        load_exported(folder / "network.pt2")(torch.zeros(2, 3, 8, 8))

    return case


def _in_json(change: Callable[[dict[str, Any], Path], None], name: str = PROGRAM) -> Any:
    def change_member(members: Members, folder: Path) -> None:
        values = json.loads(members[name])
        change(values, folder)
        members[name] = json.dumps(values).encode()

    return _case(change_member)


def _everywhere(key: str, text: Callable[[Path], str]) -> Any:
    """That text in the place of all strings of that key."""

    def replaced(value: Any, folder: Path) -> Any:
        if isinstance(value, dict):
            return {
                name: text(folder) if name == key and isinstance(inner, str) else inner
                for name, inner in ((name, replaced(value[name], folder)) for name in value)
            }
        return [replaced(inner, folder) for inner in value] if isinstance(value, list) else value

    def change(values: dict[str, Any], folder: Path) -> None:
        values.update(replaced(values, folder))

    return _in_json(change)


def _saved(value: Any) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def _pickled_weights(members: Members, folder: Path) -> None:
    name = "archive/data/weights/model_weights_config.json"
    values = json.loads(members[name])
    for payload in values["config"].values():
        payload["use_pickle"] = True
    members[name] = json.dumps(values).encode()
    members["archive/data/weights/weight_0"] = _saved(make_folder(folder))


def _first_step(values: dict[str, Any], folder: Path) -> None:
    step = values["graph_module"]["graph"]["nodes"][0]
    path = {"name": "path", "arg": {"as_string": str(folder / SPRUNG)}, "kind": 1}
    step.update(target="torch.serialization.os.mkdir", inputs=[path])


def _remarks(values: dict[str, Any], folder: Path) -> None:
    for step in values["graph_module"]["graph"]["nodes"]:
        step["metadata"]["stack_trace"] = f"a remark\n{source(folder)}"


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
    "network.pt2 with pickled weights": _case(_pickled_weights),
    "network.pt2 with pickled inputs": _case(
        lambda members, folder: members.update(
            {"archive/data/sample_inputs/model.pt": _saved(make_folder(folder))}
        )
    ),
    "network.pt2 with an object": _case(
        lambda members, folder: members.update({"archive/data/constants/opaque_obj_0": b""})
    ),
    "network.pt2 with a library": _case(
        lambda members, folder: members.update({"archive/data/aotinductor/model/x.so": b""})
    ),
    "network.pt2 with code for a shape": _everywhere("expr_str", source),
    "network.pt2 with code for a guard": _in_json(
        lambda values, folder: values.update(guards_code=[source(folder)])
    ),
    "network.pt2 with code for a name": _everywhere("name", source),
    "network.pt2 with code in a remark": _in_json(_remarks),
    "network.pt2 with a function of Python": _in_json(_first_step),
    "network.onnx with weights elsewhere": _weights_elsewhere,
}
