"""Files with a changed bit or a missing end: read as they were written, or refused in one line."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bsconv.experiments.config import TrainConfig
from bsconv.experiments.data import load_dataset
from bsconv.experiments.files.checkpoints import (
    read_checkpoint,
    read_trained,
    write_checkpoint,
    write_trained,
)
from bsconv.experiments.files.weights import read_weights

from ..runs import equal


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, 3)).eval()


def checkpoint(path: Path) -> None:
    state = {"epoch": 1, "history": [{"epoch": 1, "train_loss": 0.1}], "num_classes": 3}
    write_checkpoint(path, {**state, "config": {"seed": 1}, "model": network().state_dict()})


def trained(path: Path) -> None:
    write_trained(path, network(), TrainConfig(), 3)


def read_trained_parts(path: Path) -> Any:
    found = read_trained(path)
    return [found.config, found.num_classes, found.state]


def archive(path: Path) -> None:
    chance = np.random.default_rng(0)
    images = chance.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    labels, classes = np.arange(30) % 10, np.array([f"class {number}" for number in range(10)])
    parts: dict[str, Any] = {"train_images": images[:20], "train_labels": labels[:20]}
    np.savez(path, **parts, test_images=images[20:], test_labels=labels[20:], classes=classes)


def read_archive(path: Path) -> Any:
    data = load_dataset("cifar10", path.parent)
    tensors = [data.train_images, data.train_labels, data.test_images, data.test_labels]
    return [data.classes, *tensors]


# file -> how it is written and read
FILES: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "checkpoint.pt": (checkpoint, read_checkpoint),
    "model.safetensors": (trained, read_trained_parts),
    "weights.pt": (lambda path: torch.save(network().state_dict(), path), read_weights),
    "weights.safetensors": (trained, read_weights),
    "cifar10.npz": (archive, read_archive),
}


def outcomes(name: str, folder: Path, flips: int | None, cuts: int, seed: int) -> dict[str, int]:
    """How often each outcome came of so many changed bits and missing ends of the file ``name``.

    With ``flips=None`` every bit is changed once. AssertionError where what is read differs from
    what was written, or the error is no line.
    """
    write, read = FILES[name]
    path, chance, counts = folder / name, random.Random(seed), Counter[str]()
    write(path)
    content = path.read_bytes()
    expected = read(path)
    for damaged, what in _damaged(content, flips, cuts, chance):
        path.write_bytes(damaged)
        try:
            same = equal(read(path), expected)
        except (ValueError, OSError) as error:
            if not str(error) or "\n" in str(error) or str(path) not in str(error):
                raise AssertionError(f"no line that names the file: {error}") from error
            counts["refused"] += 1
            continue
        if not same:
            raise AssertionError(f"{name} reads as another with {what}")
        counts["read as written"] += 1
    return dict(sorted(counts.items()))


def _damaged(
    content: bytes, flips: int | None, cuts: int, chance: random.Random
) -> Iterator[tuple[bytes, str]]:
    bits = range(8 * len(content))
    for bit in bits if flips is None else chance.choices(bits, k=flips):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged), f"bit {bit % 8} of byte {bit // 8} changed"
    for length in chance.choices(range(len(content)), k=cuts):
        yield content[:length], f"nothing after byte {length}"
