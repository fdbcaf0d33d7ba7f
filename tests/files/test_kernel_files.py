"""Kernels in files of other frameworks: what the spectra of the same network are from PyTorch."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bsconv.experiments.files.kernel_files import read_kernels

PERMUTED = {"conv": (2, 3, 1, 0), "transpose": (2, 3, 0, 1), "depthwise": (2, 3, 0, 1)}  # Keras'


@pytest.fixture
def kernels() -> dict[str, Tensor]:
    """Of shape (N, M, Kh, Kw), as convolutions compute with them."""
    shapes = {"conv": (8, 6, 3, 3), "transpose": (4, 8, 2, 5), "depthwise": (6, 1, 3, 3)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def write_hdf5(path: Path, kernels: dict[str, Tensor]) -> None:
    with pytest.importorskip("h5py").File(path, "w") as file:
        for name, kernel in kernels.items():
            file[f"layers/{name}/vars/0"] = kernel.permute(PERMUTED[name]).numpy()
            file[f"optimizer/{name}/vars/0"] = kernel.permute(PERMUTED[name]).numpy()
            file[f"layers/{name}/vars/1"] = torch.zeros(len(kernel)).numpy()


def write_onnx(path, kernels, types=("Conv", "ConvTranspose")) -> None:
    onnx = pytest.importorskip("onnx")
    nodes, stored = [], []
    for name, kernel in kernels.items():
        weight = kernel.transpose(0, 1) if name == "transpose" else kernel
        stored.append(onnx.numpy_helper.from_array(weight.contiguous().numpy(), f"{name}.weight"))
        group = {"group": len(kernel)} if name == "depthwise" else {}
        kind = types[name == "transpose"]
        nodes.append(onnx.helper.make_node(kind, ["x", f"{name}.weight"], [name], **group))
    nodes.append(onnx.helper.make_node("Conv", ["x", "computed"], ["y"]))
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "net", [], [], stored)), path)


@pytest.mark.parametrize(
    ("suffix", "write", "prefix"),
    [
        pytest.param(".h5", write_hdf5, "layers.{}.vars.0", marks=pytest.mark.slow),  # its import
        (".onnx", write_onnx, "{}"),
    ],
)
def test_kernels_are_those_that_were_stored(suffix, write, prefix, kernels, tmp_path, said):
    path = tmp_path / f"network{suffix}"
    write(path, kernels)
    expected = {f"{prefix.format(name)}.weight": kernel for name, kernel in kernels.items()}
    torch.testing.assert_close(read_kernels(path), expected)
    printed = said("spectra", path).out
    assert "2 of 3 convolutions compared" in printed
    assert "transposed" not in printed.splitlines()[-1]  # the file says which ones are


@pytest.mark.parametrize("suffix", [pytest.param(".h5", marks=pytest.mark.slow), ".onnx"])
def test_other_files_are_refused_in_one_line(suffix, tmp_path, monkeypatch, failure):
    package, path = "onnx" if suffix == ".onnx" else "h5py", tmp_path / f"network{suffix}"
    pytest.importorskip(package)
    of = f"bsconv spectra: {path}"
    assert failure("spectra", path) == f"{of}: No such file or directory\n"
    path.write_bytes(b"not a network" * 99)
    assert failure("spectra", path).startswith(f"{of} holds no network of {package}: ")
    monkeypatch.setitem(sys.modules, package, None)
    source = {"onnx": "'bsconv[onnx]'"}.get(package, package)
    needed = f"this needs the package {package}: pip install {source}"
    assert failure("spectra", path) == f"bsconv spectra: {needed}\n"


def test_a_graph_without_kernels_is_refused(tmp_path: Path) -> None:
    write_onnx(tmp_path / "a.onnx", {})
    with pytest.raises(ValueError, match="needs kernels of convolutions, got none"):
        read_kernels(tmp_path / "a.onnx")
