"""Folders as people have them: formats, nests, splits, links, damage, more than memory holds."""

import copy
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torchvision import transforms

from bsconv.experiments import data
from bsconv.experiments.training import TrainConfig, train
from bsconv.pytorch import get_model
from helpers.small_runs import weights


def noisy(path: Path, size: tuple[int, int] = (12, 9)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def folder_of(folder: Path, count: int = 5, suffix: str = ".png") -> Path:
    """``folder/CLASS/NUMBER.png``; the grey value of an image tells class and number."""
    for label, name in enumerate(("cats", "dogs")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image = Image.new("RGB", (8, 6), (100 * label + index,) * 3)
            image.save(folder / name / f"{index}{suffix}")
    return folder


def grey_values(images: Tensor) -> list[int]:
    assert torch.equal(images.amin((1, 2, 3)), images.amax((1, 2, 3)))
    return images[:, 0, 0, 0].tolist()


def counts(dataset: data.ImageDataset) -> tuple[int, int]:
    return len(dataset.train_images), len(dataset.test_images)


def refusal(folder: Path, match: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=match) as error:
        data.load_dataset(folder, **options)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- what is found and how it is split


def test_train_and_test_folders(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", 5)
    folder_of(tmp_path / "test", 3)
    dataset = data.load_dataset(tmp_path, image_size=4)
    assert (dataset.name, dataset.classes) == (tmp_path.name, ("cats", "dogs"))
    assert dataset.train_images.shape == (10, 3, 4, 4)
    assert dataset.test_images.shape == (6, 3, 4, 4)
    assert (dataset.train_images.dtype, dataset.train_labels.dtype) == (torch.uint8, torch.int64)
    assert sorted(grey_values(dataset.train_images)) == [*range(5), *range(100, 105)]
    for split in ("train", "test"):
        values = grey_values(getattr(dataset, f"{split}_images"))
        assert [value // 100 for value in values] == getattr(dataset, f"{split}_labels").tolist()


def test_a_fixed_fifth_of_each_class_is_held_out(tmp_path: Path) -> None:
    dataset = data.load_dataset(str(folder_of(tmp_path / "pets", 50)))
    assert dataset.name == "pets"
    assert torch.bincount(dataset.train_labels).tolist() == [40, 40]
    assert torch.bincount(dataset.test_labels).tolist() == [10, 10]
    assert 4 <= int(dataset.limited(train=20).train_labels.sum()) <= 16  # the first are mixed
    everything = grey_values(dataset.train_images) + grey_values(dataset.test_images)
    assert sorted(everything) == [*range(50), *range(100, 150)]
    # what lies side by side in a folder is often alike: the held-out ones come from all over
    held_out = sorted(value for value in grey_values(dataset.test_images) if value < 100)
    assert held_out[0] < 25 <= held_out[-1]


@pytest.mark.parametrize(("split", "held_out"), [(0.2, 2), (0.5, 5), (0.01, 1), (0.99, 9), (1, 10)])
@pytest.mark.parametrize("inside", ["", "train"])
def test_a_share_is_held_out_always_the_same(split, held_out, inside, tmp_path):
    for name in ("a", "b"):
        folder_of(tmp_path / name / inside, 10)
    found = [data.load_dataset(tmp_path / name, split=split) for name in ("a", "b")]
    assert counts(found[0]) == (20 - 2 * held_out, 2 * held_out)
    assert found[0].checksum == found[1].checksum


@pytest.mark.parametrize("name", ["val", "valid", "Testing", "validation"])
def test_names_of_the_test_set(name: str, tmp_path: Path) -> None:
    folder_of(tmp_path / "train", 3)
    folder_of(tmp_path / name, 2)
    assert counts(data.load_dataset(tmp_path)) == (6, 4)
    refusal(tmp_path, f"split goes with a folder that is not .* holds {name}$", split=0.5)
    (tmp_path / "train").rename(tmp_path / ".train")
    assert counts(data.load_dataset(tmp_path, split=1)) == (0, 4)


def test_nested_folders_count_and_droppings_do_not(tmp_path: Path) -> None:
    folder_of(tmp_path)
    noisy(tmp_path / "cats" / "siamese" / "indoors" / "a.webp")
    for name in ("__MACOSX/cats/._0.png", "cats/.DS_Store", "cats/Thumbs.db", "dogs/desktop.ini"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("junk")
    dataset = data.load_dataset(tmp_path)
    assert (counts(dataset), dataset.classes) == ((9, 2), ("cats", "dogs"))
    assert "left out" not in str(dataset)


def test_what_is_left_out_and_held_out_is_said(tmp_path, said):
    for part in ("train", "val", "test", "docs"):
        folder_of(tmp_path / part)
    (tmp_path / "train" / "cats" / "boxes.txt").write_text("1 2 3 4")
    for part in ("train", "test", "docs"):
        noisy(tmp_path / part / "cover.png")
    noisy(tmp_path / "all.JPG")
    (tmp_path / "test" / "dogs" / "a.heic").write_text("a format for which Pillow needs a plug-in")
    assert str(data.load_dataset(tmp_path)) == (
        f"{tmp_path.name}: 10 training and 10 test images in 2 classes, 32 x 32 squashed; "
        "left out: 1 .heic file, 1 .txt file, 1 folder docs, 1 folder val, 3 unlabelled images"
    )
    assert said("data", tmp_path / "docs").out == (
        "docs: 8 training and 2 test images in 2 classes, 32 x 32 squashed; "
        f"20% of each class held out to test; left out: 1 unlabelled image, {tmp_path / 'docs'}\n"
    )


# ---------------------------------------------------------------- what an image becomes


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".tif", ".gif", ".ppm", ".jp2", ".JPG"])
def test_every_format_that_pillow_reads(suffix: str, tmp_path: Path) -> None:
    assert counts(data.load_dataset(folder_of(tmp_path, suffix=suffix))) == (8, 2)


RED, GREY = (200, 40, 0), (77, 77, 77)


def transparent_palette() -> Image.Image:
    image = Image.new("P", (8, 6), 1)
    image.putpalette([0, 0, 0, *RED])
    image.info["transparency"] = b"\x00\xff"
    return image


@pytest.mark.parametrize(
    ("image", "suffix", "colour", "tolerance"),
    [
        (Image.new("RGB", (8, 6), RED), "png", RED, 0),
        (Image.new("RGB", (8, 6), RED), "jpg", RED, 4),
        (Image.new("L", (8, 6), 77), "png", GREY, 0),
        (Image.new("LA", (8, 6), (77, 128)), "png", GREY, 0),
        (Image.new("1", (8, 6), 1), "PNG", (255, 255, 255), 0),
        (Image.new("RGBA", (8, 6), (*RED, 255)), "png", RED, 0),
        (transparent_palette(), "png", RED, 0),
        (Image.new("CMYK", (8, 6), (55, 215, 255, 0)), "jpg", RED, 6),
        (Image.fromarray(np.full((6, 8), 77 * 257, np.uint16)), "png", GREY, 0),
        (Image.fromarray(np.full((6, 8), 300, np.uint16)), "png", (1, 1, 1), 0),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, image, suffix, colour, tolerance):
    path = tmp_path / f"0.{suffix}"
    image.save(path, **image.info)
    pixels = data.read_image(path, 32).flatten(1).T.int()
    expected = torch.tensor(colour, dtype=torch.int32).expand_as(pixels)
    torch.testing.assert_close(pixels, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("orientation", range(10))
def test_photographs_stand_upright(tmp_path: Path, orientation: int) -> None:
    photograph = Image.open(noisy(tmp_path / "0.png", (32, 32)))
    photograph.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(photograph))
    np.testing.assert_array_equal(data.fitted(photograph, 32).permute(1, 2, 0), expected)


def test_the_orientation_is_read_whatever_else_exif_holds(tmp_path: Path) -> None:
    turned = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    resolution = struct.pack("<HHI4s", 0x011A, 2, 3, b"72")  # as text, which it should not be
    exif = b"Exif\0\0II*\0\x08\0\0\0\2\0" + turned + resolution + bytes(4)
    pixels = np.zeros((32, 32), np.uint8)
    pixels[:, :16] = 255
    Image.fromarray(pixels).save(tmp_path / "0.jpg", exif=exif)
    assert data.read_image(tmp_path / "0.jpg", 32)[0, :16].min() > 250


@pytest.mark.parametrize(
    ("resize", "transform"),
    [
        ("squash", transforms.Resize((24, 24))),
        ("shorter", transforms.Compose([transforms.Resize(24), transforms.CenterCrop(24)])),
        ("32", transforms.Compose([transforms.Resize(32), transforms.CenterCrop(24)])),
        ("squash,bicubic", transforms.Resize((24, 24), transforms.InterpolationMode.BICUBIC)),
    ],
)
@pytest.mark.parametrize("size", [(61, 40), (40, 61), (17, 17), (300, 24)])
def test_sizes_are_those_of_torchvision_to_the_bit(resize, transform, size, tmp_path):
    path = noisy(tmp_path / "0.png", size)
    expected = transforms.functional.pil_to_tensor(transform(Image.open(path)))
    assert torch.equal(data.read_image(path, 24, resize), expected)


# ---------------------------------------------------------------- links and damage


def test_links_inside_the_tree_are_followed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pets")
    (folder / "cats" / "linked.png").symlink_to(folder / "cats" / "0.png")
    (tmp_path / "link").symlink_to(folder)
    assert sum(counts(data.load_dataset(tmp_path / "link"))) == 11


@pytest.mark.parametrize(
    ("link", "target"), [("cats/linked.png", "dogs/0.png"), ("linked", "dogs"), ("test", "")]
)
def test_links_out_of_the_tree_are_refused(tmp_path: Path, link: str, target: str) -> None:
    outside = folder_of(tmp_path / "outside")
    folder = tmp_path / "pets"
    folder_of(folder / "train" if link == "test" else folder)
    (folder / link).symlink_to(outside / target)
    refusal(folder, f"{Path(link).name} is a link that leads out of")


def test_images_alone_are_a_data_set_without_labels(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pets") / "dogs"
    refusal(folder, "one folder of images for each of 2 or more classes, found 0")
    dataset = data.load_dataset(folder, labelled=False)
    assert (sorted(grey_values(dataset.train_images)), dataset.classes) == ([*range(100, 105)], ())
    assert data.load_dataset(folder.parent, labelled=False).classes == ("cats", "dogs")
    (folder.parent / "cats").rename(folder / "cats")  # so that a single folder is left
    assert counts(data.load_dataset(folder.parent, labelled=False)) == (10, 0)


def truncated(path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:900])


# each is done to a folder of two classes
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "cats").rename(folder / ".hidden"), "2 or more classes, found 1"),
        (lambda folder: (folder / "birds").mkdir(), "birds holds no image that Pillow reads"),
        (lambda folder: noisy(folder / "birds/0.png"), "class 'birds' in .* needs 2 images"),
        (
            lambda folder: folder_of(folder / "train"),
            "or classes alone, got 0 in cats, 0 in dogs, 2 in train",
        ),
        (
            lambda folder: noisy(folder_of(folder_of(folder / "train") / "../test") / "a/0.png"),
            "the same classes; only one of them has a",
        ),
        (lambda folder: folder_of(folder / "test"), "got 0 in cats, 0 in dogs, 2 in test"),
        (lambda top: [noisy(top / x / "0.png") for x in ("train", "val")], "0 in train, 0 in val"),
    ],
)
def test_what_is_wrong_with_a_folder(tmp_path, damage, message):
    damage(folder_of(tmp_path / "pets"))
    refusal(tmp_path / "pets", message)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_text("no image"), "is not a readable image: cannot identify"),
        (truncated, "is not a readable image: .*truncated"),
        (lambda path: path.symlink_to("gone.png"), "is a link that leads nowhere"),
        (os.mkfifo, "is not a readable image: it is not a regular file"),
        # PostScript would run a program
        (lambda path: Image.new("RGB", (8, 8)).save(path, "EPS"), "is not a readable image"),
    ],
)
def test_what_is_wrong_with_an_image(tmp_path, damage, message):
    damage(folder_of(tmp_path) / "cats" / "a.png")
    refusal(tmp_path, f"a.png {message}")


def test_several_damaged_images_are_named_together(tmp_path: Path) -> None:
    for number in range(22):
        (folder_of(tmp_path) / "cats" / f"bad{number}.png").write_text("no image")
    refusal(tmp_path, r"^(\S*bad\d+\.png is not [^;\n]*; ){20}and 2 more$")


def test_wrong_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path)
    refusal(tmp_path, "got image_size=0", image_size=0)
    refusal(tmp_path, "resize needs image_size=32 or more, got 16", resize="16")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    refusal(tmp_path, r"\.png is not a readable image: Image size \(48 pixels")


# ---------------------------------------------------------------- more than memory holds


@pytest.mark.slow
def test_images_on_the_disk_are_those_in_memory(tmp_path, monkeypatch):
    memory = data.load_dataset(folder_of(tmp_path, 20), image_size=8)
    monkeypatch.setattr(data._folders, "IN_MEMORY", 0)
    disk = data.load_dataset(tmp_path, image_size=8)
    assert isinstance(disk.train_images, data.ImageFiles)
    assert torch.equal(disk.test_labels, memory.test_labels)
    assert torch.equal(disk.test_images[:], memory.test_images)
    assert counts(disk.limited(train=3)) == (3, 8)
    batches = [torch.tensor([4, 1]), slice(2, 5)]
    one, other = (list(data.batches_of(each.train_images, batches)) for each in (disk, memory))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    before = disk.checksum
    noisy(tmp_path / "cats" / "0.png")
    assert disk.checksum != before


@pytest.mark.slow
def test_a_run_on_the_disk_is_the_run_in_memory(tmp_path, monkeypatch):
    folder_of(tmp_path, 20)
    settings: Any = {"dataset": str(tmp_path), "image_size": 16, "epochs": 2, "device": "cpu"}
    config = TrainConfig("cifar_resnet20", batch_size=8, learning_rate=0.01, **settings)
    model = nn.Sequential(get_model("cifar_resnet20", 2), nn.Dropout())
    memory = train(config, model=copy.deepcopy(model), progress=False)
    monkeypatch.setattr(data._folders, "IN_MEMORY", 0)
    disk = train(config, model=model, progress=False)
    assert disk.last.train_loss == memory.last.train_loss
    torch.testing.assert_close(weights(disk), weights(memory), rtol=0, atol=0)


@pytest.mark.slow
def test_broken_images_are_named_together_when_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(data._folders, "IN_MEMORY", 0)
    for path in folder_of(tmp_path, 20).glob("cats/*.png"):
        path.write_bytes(path.read_bytes()[:40])
    images = data.load_dataset(tmp_path, image_size=8).test_images
    with pytest.raises(ValueError, match=r"^(\S+\.png is not a readable image: [^\n;]*(; )?){4}$"):
        list(data.batches_of(images, torch.arange(8).split(3)))
