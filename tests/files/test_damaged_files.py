"""Files with a changed bit or a missing end: read as they were written, or refused in one line."""

import dataclasses
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bsconv.experiments.config import TrainConfig
from bsconv.experiments.data import load_dataset
from bsconv.experiments.files import checkpoints
from bsconv.experiments.files.weights import read_weights
from helpers.reliability import Section
from helpers.same_runs import equal


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, 3)).eval()


def checkpoint(path: Path) -> None:
    state = {"epoch": 1, "history": [{"epoch": 1, "train_loss": 0.1}], "num_classes": 3}
    state |= {"config": {"seed": 1}, "model": network().state_dict()}
    checkpoints.write_checkpoint(path, state)


def trained(path: Path) -> None:
    checkpoints.write_trained(path, network(), TrainConfig(), 3)


def read_trained_parts(path: Path) -> Any:
    return vars(checkpoints.read_trained(path))


def archive(path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    labels, classes = np.arange(30) % 10, np.array([f"class {number}" for number in range(10)])
    parts: dict[str, Any] = {"train_images": images[:20], "train_labels": labels[:20]}
    np.savez(path, **parts, test_images=images[20:], test_labels=labels[20:], classes=classes)


# file -> how it is written and read
FILES: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "checkpoint.pt": (checkpoint, checkpoints.read_checkpoint),
    "model.safetensors": (trained, read_trained_parts),
    "weights.pt": (lambda path: torch.save(network().state_dict(), path), read_weights),
    "weights.safetensors": (trained, lambda path: read_weights(path)[0]),
    "cifar10.npz": (archive, lambda path: load_dataset("cifar10", path.parent).checksum),
}


def damaged(content: bytes, flips: int | None, cuts: int) -> Iterator[tuple[bytes, str]]:
    """With so many changed bits, every one if None, and missing ends."""
    chance, bits = random.Random(1), range(8 * len(content))
    for bit in bits if flips is None else chance.choices(bits, k=flips):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed), f"bit {bit % 8} of byte {bit // 8} changed"
    for length in chance.choices(range(len(content)), k=cuts):
        yield content[:length], f"nothing after byte {length}"


def refusals(name: str, folder: Path, flips: int | None, cuts: int) -> tuple[int, int]:
    """How many damaged files were tried and refused; the others read as they were written."""
    write, read = FILES[name]
    path, refused = folder / name, []
    write(path)
    content, expected = path.read_bytes(), read(path)
    for changed, what in damaged(content, flips, cuts):
        path.write_bytes(changed)
        said = str(path)
        try:
            assert equal(read(path), expected), f"reads as another with {what}"
        except (ValueError, OSError) as error:
            said = str(error)
        refused.append(said != str(path))
        assert "\n" not in said, what
        assert str(path) in said, what
    return len(refused), sum(refused)


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_read_as_written_or_not_at_all(tmp_path: Path, name: str) -> None:
    tried, refused = refusals(name, tmp_path, flips=200, cuts=60)
    assert refused > tried / 2


@pytest.mark.nightly
@pytest.mark.parametrize("name", FILES)
def test_with_every_bit_changed(tmp_path: Path, name: str, section: Section) -> None:
    """Of the largest file, with bits drawn at random."""
    tried, refused = refusals(name, tmp_path, 2000 if name == "cifar10.npz" else None, cuts=500)
    section(
        "Damaged files",
        f"- `{name}`, with one bit changed or its end missing, {tried:,} times: {refused:,} refused"
        f" in one line, {tried - refused:,} read as written",
    )


@pytest.mark.parametrize("name", ["checkpoint.pt", "weights.pt"])
def test_parts_marked_as_directories_are_refused(tmp_path: Path, name: str) -> None:
    """For these torch reads no numbers, but what lies in memory, and the checksums are right."""
    write, read = FILES[name]
    path = tmp_path / name
    write(path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start, parts = archive.start_dir, archive.infolist()
    attributes = [content.index(part.filename.encode(), start) - 8 for part in parts]
    assert len(attributes) > 8
    for position in attributes:
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name} .*marked as a directory"):
            read(path)


def test_old_files_without_a_checksum_are_read(tmp_path: Path) -> None:
    about = {"num_classes": 3, "config": dataclasses.asdict(TrainConfig())}
    path = tmp_path / "model.safetensors"
    save_file(network().state_dict(), path, {"bsconv": json.dumps(about)})
    trained(tmp_path / "new.safetensors")
    old, new = (read_trained_parts(each) for each in (path, tmp_path / "new.safetensors"))
    assert equal(old, new)
