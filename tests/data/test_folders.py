"""Folders as people have them: formats, nests, splits, droppings, and more than memory holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from bsconv.experiments.data import ImageDataset, ImageFiles, _folders, batches_of, load_dataset
from bsconv.experiments.training import TrainConfig, evaluate, train
from helpers.small_runs import weights


def noisy(path: Path, size: tuple[int, int] = (12, 9), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def folder_of(folder: Path, count: int = 5, suffix: str = ".png") -> Path:
    for label, name in enumerate(("cats", "dogs")):
        for index in range(count):
            noisy(folder / name / f"{index}{suffix}", seed=10 * label + index)
    return folder


def counts(dataset: ImageDataset) -> tuple[int, int]:
    return len(dataset.train_images), len(dataset.test_images)


@pytest.mark.parametrize(
    "suffix", [".webp", ".bmp", ".tif", ".gif", ".ppm", ".jp2", ".tga", ".JPG"]
)
def test_every_format_that_pillow_reads(suffix: str, tmp_path: Path) -> None:
    assert counts(load_dataset(folder_of(tmp_path, suffix=suffix))) == (8, 2)


def test_postscript_would_run_a_program(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder_of(tmp_path) / "cats" / "figure.eps")
    (tmp_path / "cats" / "disguised.png").write_bytes((tmp_path / "cats/figure.eps").read_bytes())
    with pytest.raises(ValueError, match=r"disguised\.png is not a readable image"):
        load_dataset(tmp_path)


def test_nested_folders_count_and_droppings_do_not(tmp_path: Path) -> None:
    folder_of(tmp_path)
    noisy(tmp_path / "cats" / "siamese" / "indoors" / "a.webp")
    for name in ("__MACOSX/cats/._0.png", "cats/.DS_Store", "cats/Thumbs.db", "dogs/desktop.ini"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("junk")
    dataset = load_dataset(tmp_path)
    assert counts(dataset) == (9, 2)
    assert dataset.classes == ("cats", "dogs")
    assert "left out" not in str(dataset)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    for part in ("train", "val", "test", "docs"):
        folder_of(tmp_path / part)
    (tmp_path / "train" / "cats" / "boxes.txt").write_text("1 2 3 4")
    (tmp_path / "test" / "dogs" / "a.heic").write_text("a format for which Pillow needs a plug-in")
    said = str(load_dataset(tmp_path))
    assert said == (
        f"{tmp_path.name}: 10 training and 10 test images in 2 classes, 32 x 32 squashed; "
        "left out: 1 .heic files, 1 .txt files, 1 folder docs, 1 folder val"
    )


@pytest.mark.parametrize("name", ["val", "valid", "Testing", "validation"])
def test_names_of_the_test_set(name: str, tmp_path: Path) -> None:
    folder_of(tmp_path / "train", 3)
    folder_of(tmp_path / name, 2)
    assert counts(load_dataset(tmp_path)) == (6, 4)
    with pytest.raises(ValueError, match=f"split goes with a folder that is not .* holds {name}$"):
        load_dataset(tmp_path, split=0.5)


@pytest.mark.parametrize(("split", "held_out"), [(0.2, 2), (0.5, 5), (0.01, 1), (0.99, 9)])
@pytest.mark.parametrize("inside", ["", "train"])
def test_a_share_is_held_out_always_the_same(
    split: float, held_out: int, inside: str, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        folder_of(tmp_path / name / inside, 10)
    found = [load_dataset(tmp_path / name, split=split) for name in ("a", "b")]
    assert counts(found[0]) == (20 - 2 * held_out, 2 * held_out)
    assert found[0].checksum == found[1].checksum


@pytest.mark.parametrize(
    ("resize", "transform"),
    [
        ("squash", transforms.Resize((24, 24))),
        ("shorter", transforms.Compose([transforms.Resize(24), transforms.CenterCrop(24)])),
        ("32", transforms.Compose([transforms.Resize(32), transforms.CenterCrop(24)])),
    ],
)
@pytest.mark.parametrize("size", [(61, 40), (40, 61), (17, 17), (300, 24)])
def test_sizes_are_those_of_torchvision_to_the_bit(
    resize: str, transform: Any, size: tuple[int, int], tmp_path: Path
) -> None:
    folder_of(tmp_path / "train")
    for name in ("cats", "dogs"):
        path = noisy(tmp_path / "val" / name / "0.png", size)
    dataset = load_dataset(tmp_path, image_size=24, resize=resize)
    expected = transforms.functional.pil_to_tensor(transform(Image.open(path)))
    assert torch.equal(dataset.test_images[0:1][0], expected)


def test_the_shorter_side_holds_the_crop(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resize needs image_size=32 or more, got 16"):
        load_dataset(folder_of(tmp_path), resize="16")


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders count as larger than memory from now on."""
    monkeypatch.setattr(_folders, "IN_MEMORY", 0)


@pytest.mark.slow
def test_images_on_the_disk_are_those_in_memory(tmp_path: Path, on_disk: None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_folders, "IN_MEMORY", 2**30)
        memory = load_dataset(folder_of(tmp_path, 20), image_size=8)
    disk = load_dataset(tmp_path, image_size=8)
    assert isinstance(disk.train_images, ImageFiles)
    assert disk.train_images.shape == memory.train_images.shape
    assert torch.equal(disk.test_labels, memory.test_labels)
    assert torch.equal(disk.test_images[:], memory.test_images[:])
    assert counts(disk.limited(train=3)) == (3, 8)
    batches = [torch.tensor([4, 1]), slice(2, 5)]
    for one, other in zip(
        *(batches_of(d.train_images, batches) for d in (disk, memory)), strict=True
    ):
        assert torch.equal(one, other)
    before = disk.checksum
    noisy(tmp_path / "cats" / "0.png", seed=99)
    assert disk.checksum != before


@pytest.mark.slow
def test_a_run_on_the_disk_is_the_run_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path, 20)
    settings: Any = {"dataset": str(tmp_path), "image_size": 16, "epochs": 2, "device": "cpu"}
    config = TrainConfig("cifar_resnet20", batch_size=8, learning_rate=0.01, **settings)
    found = []
    for limit in (2**30, 0):
        monkeypatch.setattr(_folders, "IN_MEMORY", limit)
        found.append(train(config, progress=False))
    assert found[0][-1].train_loss == found[1][-1].train_loss
    assert found[0][-1].test_top1 == found[1][-1].test_top1
    torch.testing.assert_close(weights(found[0]), weights(found[1]), rtol=0, atol=0)


def test_a_broken_image_is_named_when_it_is_read(tmp_path: Path, on_disk: None) -> None:
    folder_of(tmp_path, 20)
    for path in tmp_path.glob("cats/*.png"):
        path.write_bytes(path.read_bytes()[:60])
    dataset = load_dataset(tmp_path, image_size=8)
    with pytest.raises(ValueError, match=r"\d+\.png is not a readable image: [^\n]*$"):
        evaluate(torch.nn.Flatten(), dataset.test_images, dataset.test_labels)
