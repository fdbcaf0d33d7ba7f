"""Convolution kernels in files of other frameworks: HDF5 as Keras writes it, and ONNX."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .json_files import holding
from .torch_files import LARGEST

KERNEL_FILES = (".h5", ".hdf5", ".onnx")  # their suffixes


def read_kernels(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The kernels of two-dimensional convolutions in a file, as a state dict of "NAME.weight".

    Each has shape (N, M / groups, Kh, Kw), also that of a transposed convolution without groups.
    Of HDF5 files, all arrays of four dimensions are taken for kernels in the order of Keras
    (Kh, Kw, M, N), but for those of an optimizer. No code of the file runs.
    """
    path = Path(path)
    path.open("rb").close()
    package, read = ("onnx", _onnx) if path.suffix.lower() == ".onnx" else ("h5py", _hdf5)
    library: Any = importlib.import_module(package)
    with holding(f"network of {package}", path):
        kernels = {f"{name}.weight": kernel.contiguous() for name, kernel in read(library, path)}
    if not kernels:
        raise ValueError(f"{path} needs kernels of convolutions, got none of them")
    return kernels


def _hdf5(h5py: Any, path: Path) -> Iterator[tuple[str, Tensor]]:
    names: list[str] = []
    with h5py.File(path, "r") as file:
        file.visit(names.append)
        for name in names:
            array = file[name]
            if getattr(array, "ndim", 0) != 4 or array.dtype.kind != "f" or "optimizer" in name:
                continue
            if array.nbytes > LARGEST * path.stat().st_size + 2**20:
                raise ValueError(f"{name} claims to be far larger than the file")
            kernel = _tensor(array[()])
            if "transpose" in name:
                kernel = kernel.permute(2, 3, 0, 1)
            elif "depthwise" in name or ("separable" in name and array.shape[:2] != (1, 1)):
                kernel = kernel.flatten(2)[:, :, None].permute(3, 2, 0, 1)
            else:
                kernel = kernel.permute(3, 2, 0, 1)
            yield name.replace("/", ".").removesuffix(":0").removesuffix(".kernel"), kernel


def _onnx(onnx: Any, path: Path) -> Iterator[tuple[str, Tensor]]:
    graph = onnx.load(path).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            stored[node.output[0]] = node.attribute[0].t
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose") or node.input[1] not in stored:
            continue
        tensor = stored[node.input[1]]
        if len(tensor.dims) == 4:
            kernel = _tensor(onnx.numpy_helper.to_array(tensor))
            groups = [attribute.i for attribute in node.attribute if attribute.name == "group"]
            if node.op_type == "ConvTranspose" and groups in ([], [1]):
                kernel = kernel.transpose(0, 1)
            yield node.input[1].removesuffix(".weight"), kernel


def _tensor(array: Any) -> Tensor:
    """In float32 unless it has more digits."""
    return torch.from_numpy(array.astype("float64" if array.dtype.itemsize > 4 else "float32"))
