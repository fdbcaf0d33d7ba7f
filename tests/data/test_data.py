"""Data sets: archives and their download, folders of images, the synthetic set."""

import dataclasses
import http.client
import os
import socket
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from bsconv import __main__ as command_line
from bsconv.experiments.data import (
    DatasetNotFoundError,
    ImageDataset,
    data_folder,
    load_dataset,
    to_float,
)
from bsconv.experiments.data._archives import TIMEOUT

CLASSES = {"cifar10": 10, "cifar100": 100}


@pytest.fixture(autouse=True)
def own_surroundings(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No data of this machine is in sight, and no test gets at the network."""
    monkeypatch.delenv("BSCONV_DATA", raising=False)
    monkeypatch.delenv("BSCONV_OFFLINE", raising=False)
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a test tried to get at the network")

    monkeypatch.setattr(socket.socket, "connect", refused)


def arrays(name: str = "cifar10", train: int = 200, test: int = 100) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    count = CLASSES[name]
    return {
        "train_images": random.integers(0, 256, (train, 32, 32, 3), np.uint8),
        "train_labels": np.arange(train) % count,
        "test_images": random.integers(0, 256, (test, 32, 32, 3), np.uint8),
        "test_labels": np.arange(test) % count,
        "classes": np.array([f"class {label}" for label in range(count)]),
    }


def write_archive(folder: Path, name: str = "cifar10", **changed: Any) -> Path:
    """A small archive; ``changed`` arrays differ from a good one, ``None`` leaves them out."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        key: value for key, value in {**arrays(name), **changed}.items() if value is not None
    }
    path = folder / f"{name}.npz"
    np.savez(path, **content)
    return path


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert message
    assert "\n" not in message
    return message


# ---------------------------------------------------------------- ImageDataset


def small() -> ImageDataset:
    return ImageDataset(
        "small",
        ("a", "b"),
        torch.zeros(6, 3, 4, 5, dtype=torch.uint8),
        torch.tensor([0, 1, 0, 1, 0, 1]),
        torch.zeros(4, 3, 4, 5, dtype=torch.uint8),
        torch.tensor([1, 0, 1, 0]),
    )


def test_sizes_of_a_dataset() -> None:
    assert small().num_classes == 2
    assert small().image_size == (4, 5)


def test_checksum_is_of_all_that_is_in_a_dataset() -> None:
    sets = [small(), small()]
    assert sets[0].checksum == sets[1].checksum
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        tensor = getattr(sets[0], part).clone()
        tensor[-1] = 1 - tensor[-1]
        sets.append(dataclasses.replace(sets[0], **{part: tensor}))
        sets.append(dataclasses.replace(sets[0], **{part: getattr(sets[0], part)[1:]}))
    sets.append(dataclasses.replace(sets[0], classes=("b", "a")))
    assert len({each.checksum for each in sets}) == len(sets) - 1


def test_limited_takes_the_first_images_or_all() -> None:
    limited = small().limited(train=3, test=2)
    assert limited.train_images.shape == (3, 3, 4, 5)
    assert limited.train_labels.tolist() == [0, 1, 0]
    assert limited.test_labels.tolist() == [1, 0]
    assert limited.classes == ("a", "b")
    for all_of_them in (small().limited(), small().limited(train=100, test=None)):
        assert (len(all_of_them.train_labels), len(all_of_them.test_labels)) == (6, 4)


@pytest.mark.parametrize(("argument", "value"), [("train", 0), ("test", -3)])
def test_limited_refuses_no_images(argument: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{argument} >= 1 images, got {argument}={value}"):
        small().limited(**{argument: value})


def test_to_moves_everything() -> None:
    moved = small().to("meta")
    tensors = [value for value in vars(moved).values() if isinstance(value, Tensor)]
    assert len(tensors) == 4
    assert all(tensor.is_meta for tensor in tensors)


# ---------------------------------------------------------------- archives


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_archive_becomes_channels_first_tensors(tmp_path: Path, name: str) -> None:
    write_archive(tmp_path, name)
    content = arrays(name)
    dataset = load_dataset(name, tmp_path)
    assert dataset.name == name
    assert dataset.classes == tuple(content["classes"])
    for split in ("train", "test"):
        images, labels = getattr(dataset, f"{split}_images"), getattr(dataset, f"{split}_labels")
        assert images.dtype == torch.uint8
        assert images.is_contiguous()
        np.testing.assert_array_equal(
            images.numpy(), content[f"{split}_images"].transpose(0, 3, 1, 2)
        )
        assert labels.dtype == torch.int64
        np.testing.assert_array_equal(labels.numpy(), content[f"{split}_labels"])


@pytest.mark.parametrize("dtype", ["u1", ">i4", "<i8"])
def test_labels_of_any_integer_type(tmp_path: Path, dtype: str) -> None:
    labels = np.arange(200).astype(dtype) % 10
    write_archive(tmp_path, train_labels=labels.astype(dtype))
    assert load_dataset("cifar10", tmp_path).train_labels.tolist() == labels.tolist()


def test_compressed_archive(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "cifar10.npz", **arrays())
    assert len(load_dataset("cifar10", tmp_path).train_images) == 200


def test_root_goes_before_the_environment_and_that_before_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {tmp_path / "root": 11, tmp_path / "environment": 12, Path("data"): 13}
    for folder, count in sizes.items():
        limited = {key: arrays()[key][:count] for key in ("train_images", "train_labels")}
        write_archive(folder, **limited)

    def size(root: Path | None = None) -> int:
        return len(load_dataset("cifar10", root, download=False).train_images)

    assert size() == 13
    monkeypatch.setenv("BSCONV_DATA", str(tmp_path / "environment"))
    assert size() == 12
    assert size(tmp_path / "root") == 11


def test_a_folder_that_is_named_is_the_only_one_looked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_archive(Path("data"))
    monkeypatch.setenv("BSCONV_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(DatasetNotFoundError, match="elsewhere"):
        load_dataset("cifar10", download=False)


def test_notebooks_find_the_data_beside_their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    project = Path.cwd()
    write_archive(Path("data"))
    Path("notebooks").mkdir()
    monkeypatch.chdir("notebooks")
    assert data_folder() == project / "data"
    assert load_dataset("cifar10", download=False).num_classes == 10
    Path("data").mkdir()
    assert data_folder() == project / "notebooks" / "data"


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder("~/sets") == tmp_path / "sets"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": None, "test_labels": None}, "it lacks test_labels, classes"),
        (
            {"train_images": np.zeros((200, 3, 32, 32), np.uint8)},
            r"train_images needs uint8 \[N, 32, 32, 3\], got uint8 \[200, 3, 32, 32\]",
        ),
        (
            {"test_images": np.zeros((100, 32, 32, 3), np.float32)},
            r"test_images needs uint8 .* got float32",
        ),
        (
            {"train_images": np.zeros((0, 32, 32, 3), np.uint8), "train_labels": np.zeros(0, int)},
            r"train_images needs .* got uint8 \[0, 32, 32, 3\]",
        ),
        (
            {"train_labels": np.zeros(199, np.int64)},
            r"train_labels needs 200 integers, got int64 \[199\]",
        ),
        ({"test_labels": np.zeros(100)}, "test_labels needs 100 integers, got float64"),
        ({"train_labels": np.arange(200) % 11}, "train_labels needs 0 to 9, got 0 to 10"),
        ({"test_labels": np.arange(100) % 10 - 1}, "test_labels needs 0 to 9, got -1 to 8"),
        ({"classes": np.array(["a", "b"])}, r"classes needs 10 names, got <U1 \[2\]"),
        ({"classes": np.arange(10)}, r"classes needs 10 names, got int64 \[10\]"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = write_archive(tmp_path, **changed)
    with pytest.raises(ValueError, match=message) as error:
        load_dataset("cifar10", tmp_path)
    assert str(path) in one_line(error)
    assert path.exists()


def one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b"<html>404 not found</html>"), one_array]
)
def test_another_file_is_named(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    """More of them in tests/files: damaged and hostile ones."""
    path = write_archive(tmp_path)
    damage(path)
    with pytest.raises(ValueError, match="is not a whole cifar10 archive") as error:
        load_dataset("cifar10", tmp_path)
    assert str(path) in one_line(error)


def test_a_changed_bit_in_the_header_of_an_array_is_found(tmp_path: Path) -> None:
    """NumPy takes some of them for headers of Python 2, which it reads in another way."""
    path = write_archive(tmp_path)
    content = path.read_bytes()
    start = content.index(b"\x93NUMPY")
    for position in range(start, start + 128):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="is not a whole cifar10 archive") as error:
            load_dataset("cifar10", tmp_path)
        one_line(error)


# ---------------------------------------------------------------- download


class FakeCifar:
    """Stands for torchvision's class: the data appear in ``root`` when they are downloaded."""

    calls: list[tuple[str, bool, bool]]

    def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
        self.calls.append((root, train, download))
        downloaded = Path(root) / "cifar-batches-py"
        if download:
            assert socket.getdefaulttimeout() == TIMEOUT
            downloaded.mkdir()
        assert downloaded.is_dir()
        split = "train" if train else "test"
        content = arrays()
        self.data = content[f"{split}_images"]
        self.targets = content[f"{split}_labels"].tolist()
        self.classes = content["classes"].tolist()


@pytest.fixture
def fake_cifar(monkeypatch: pytest.MonkeyPatch) -> type[FakeCifar]:
    import torchvision

    monkeypatch.setattr(FakeCifar, "calls", [], raising=False)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeCifar)
    return FakeCifar


def test_a_missing_archive_is_downloaded_once(tmp_path: Path, fake_cifar: type[FakeCifar]) -> None:
    root = tmp_path / "new" / "folder"
    first = load_dataset("cifar10", root)
    assert [call[1:] for call in fake_cifar.calls] == [(True, True), (False, False)]
    assert Path(fake_cifar.calls[0][0]).parent == root  # renaming works within one file system only
    assert [path.name for path in root.iterdir()] == ["cifar10.npz"]
    np.testing.assert_array_equal(
        first.test_images.numpy(), arrays()["test_images"].transpose(0, 3, 1, 2)
    )
    again = load_dataset("cifar10", root)
    assert len(fake_cifar.calls) == 2
    assert torch.equal(again.train_images, first.train_images)
    assert again.classes == first.classes
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError("name or service not known"),
        RuntimeError("File not found or corrupted."),
        http.client.IncompleteRead(b"", 100),
        TimeoutError("timed out"),
        OSError(28, "No space left on device"),
        EOFError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_failed_download_leaves_nothing_behind(
    tmp_path: Path, fake_cifar: type[FakeCifar], monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(self: FakeCifar, root: str, **_: Any) -> None:
        (Path(root) / "half a download").write_bytes(b"...")
        raise failure

    monkeypatch.setattr(fake_cifar, "__init__", fail)
    with pytest.raises(DatasetNotFoundError, match="fetching it failed") as error:
        load_dataset("cifar10", tmp_path / "new" / "folder")
    assert str(tmp_path / "new" / "folder") in one_line(error)
    assert "put it there" in str(error.value)
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_an_interrupted_write_leaves_nothing_behind(
    tmp_path: Path, fake_cifar: type[FakeCifar], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(file: Any, **_: Any) -> None:
        file.write(b"half an archive")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    (tmp_path / "other.txt").touch()
    with pytest.raises(KeyboardInterrupt):
        load_dataset("cifar10", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_root_that_cannot_be_made(tmp_path: Path, fake_cifar: type[FakeCifar]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetNotFoundError, match="Not a directory") as error:
        load_dataset("cifar10", tmp_path / "file" / "data")
    one_line(error)
    assert (tmp_path / "file").exists()


def test_download_false_and_offline_never_try(
    tmp_path: Path, fake_cifar: type[FakeCifar], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"no cifar10.npz in .*switched off") as error:
        load_dataset("cifar10", tmp_path, download=False)
    assert str(tmp_path) in one_line(error)
    monkeypatch.setenv("BSCONV_OFFLINE", "1")
    with pytest.raises(DatasetNotFoundError, match="BSCONV_OFFLINE is set: allow the download, or"):
        load_dataset("cifar10", tmp_path)
    assert fake_cifar.calls == []
    monkeypatch.setenv("BSCONV_OFFLINE", "0")
    assert load_dataset("cifar10", tmp_path).num_classes == 10


def test_without_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchvision", None)
    with pytest.raises(DatasetNotFoundError, match="torchvision is not installed"):
        load_dataset("cifar10", tmp_path)
    assert not list(tmp_path.glob("*.npz"))


# ---------------------------------------------------------------- folders


def save(path: Path, colour: tuple[int, int, int] = (10, 200, 90), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(path, **options)
    return path


def two_classes(folder: Path, count: int = 5) -> Path:
    """``folder/CLASS/NUMBER.png``; the grey value of an image tells class and number."""
    for label, name in enumerate(("cats", "dogs")):
        for index in range(count):
            save(folder / name / f"{index}.png", (100 * label + index,) * 3)
    return folder


def grey_values(images: Tensor) -> list[int]:
    assert torch.equal(images.amin((1, 2, 3)), images.amax((1, 2, 3)))
    return images[:, 0, 0, 0].tolist()


def test_train_and_test_folders(tmp_path: Path) -> None:
    two_classes(tmp_path / "train", 5)
    two_classes(tmp_path / "test", 3)
    dataset = load_dataset(tmp_path, image_size=4)
    assert dataset.name == tmp_path.name
    assert dataset.classes == ("cats", "dogs")
    assert dataset.train_images.shape == (10, 3, 4, 4)
    assert dataset.test_images.shape == (6, 3, 4, 4)
    assert dataset.train_images.dtype == torch.uint8
    assert dataset.train_labels.dtype == torch.int64
    assert sorted(grey_values(dataset.train_images)) == [*range(5), *range(100, 105)]
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        assert [value // 100 for value in grey_values(images)] == labels.tolist()


def test_a_fixed_fifth_of_each_class_is_held_out(tmp_path: Path) -> None:
    dataset = load_dataset(str(two_classes(tmp_path / "pets", 50)))
    assert dataset.name == "pets"
    assert torch.bincount(dataset.train_labels).tolist() == [40, 40]
    assert torch.bincount(dataset.test_labels).tolist() == [10, 10]
    everything = grey_values(dataset.train_images) + grey_values(dataset.test_images)
    assert sorted(everything) == [*range(50), *range(100, 150)]
    # what lies side by side in a folder is often alike: the held-out ones come from all over
    held_out = sorted(value for value in grey_values(dataset.test_images) if value < 100)
    assert held_out[0] < 25 <= held_out[-1]

    again = load_dataset(two_classes(tmp_path / "elsewhere" / "pets", 50))
    for split in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(again, split), getattr(dataset, split))


def test_the_first_images_of_a_folder_are_mixed(tmp_path: Path) -> None:
    dataset = load_dataset(two_classes(tmp_path, 50)).limited(train=20)
    assert 4 <= int(dataset.train_labels.sum()) <= 16


RED = (200, 40, 0)


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
        (Image.new("RGB", (8, 6), RED), "JPEG", RED, 4),
        (Image.new("L", (8, 6), 77), "png", (77, 77, 77), 0),
        (Image.new("L", (8, 6), 77), "jpg", (77, 77, 77), 1),
        (Image.new("LA", (8, 6), (77, 128)), "png", (77, 77, 77), 0),
        (Image.new("1", (8, 6), 1), "PNG", (255, 255, 255), 0),
        (Image.new("RGBA", (8, 6), (*RED, 255)), "png", RED, 0),
        (transparent_palette(), "png", RED, 0),
        (Image.new("CMYK", (8, 6), (55, 215, 255, 0)), "jpg", RED, 6),
        (Image.fromarray(np.full((6, 8), 77 * 257, np.uint16)), "png", (77, 77, 77), 0),
        (Image.fromarray(np.full((6, 8), 65535, np.uint16)), "png", (255, 255, 255), 0),
        (Image.fromarray(np.full((6, 8), 300, np.uint16)), "png", (1, 1, 1), 0),
    ],
)
def test_every_mode_becomes_rgb(
    tmp_path: Path, image: Image.Image, suffix: str, colour: tuple[int, ...], tolerance: int
) -> None:
    two_classes(tmp_path / "train")
    two_classes(tmp_path / "test", 1)
    options = {"transparency": image.info["transparency"]} if image.info else {}
    (tmp_path / "test" / "cats" / "0.png").unlink()
    image.save(tmp_path / "test" / "cats" / f"0.{suffix}", **options)
    dataset = load_dataset(tmp_path)
    pixels = dataset.test_images[dataset.test_labels == 0].permute(0, 2, 3, 1).reshape(-1, 3)
    expected = torch.tensor(colour).expand_as(pixels)
    torch.testing.assert_close(pixels.int(), expected.int(), atol=tolerance, rtol=0)


def test_photographs_stand_upright(tmp_path: Path) -> None:
    two_classes(tmp_path / "train")
    two_classes(tmp_path / "test", 1)
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255  # bright above, dark below
    upside_down = Image.fromarray(pixels[::-1, ::-1].copy())
    exif = upside_down.getexif()
    exif[0x0112] = 3  # the camera was held upside down
    upside_down.save(tmp_path / "test" / "cats" / "0.png", exif=exif)
    dataset = load_dataset(tmp_path)
    image = dataset.test_images[dataset.test_labels == 0][0]
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), pixels)


def test_links_inside_the_tree_are_followed(tmp_path: Path) -> None:
    folder = two_classes(tmp_path / "pets")
    (folder / "cats" / "linked.png").symlink_to(folder / "cats" / "0.png")
    (tmp_path / "link").symlink_to(folder)
    dataset = load_dataset(tmp_path / "link")
    assert len(dataset.train_images) + len(dataset.test_images) == 11


@pytest.mark.parametrize("what", ["file", "class", "split"])
def test_links_out_of_the_tree_are_refused(tmp_path: Path, what: str) -> None:
    outside = two_classes(tmp_path / "outside")
    folder = tmp_path / "pets"
    if what == "split":
        two_classes(folder / "train")
        link, target = folder / "test", outside
    else:
        two_classes(folder)
        link = folder / ("cats/linked.png" if what == "file" else "linked")
        target = outside / ("dogs/0.png" if what == "file" else "dogs")
    link.symlink_to(target)
    with pytest.raises(ValueError, match="is a link that leads out of") as error:
        load_dataset(folder)
    assert link.name in one_line(error)


def noisy(path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:900])


# each is done to a folder of two classes
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "cats").rename(folder / ".hidden"), "2 or more classes, found 1"),
        (lambda folder: (folder / "birds").mkdir(), "birds holds no image that Pillow reads"),
        (lambda folder: save(folder / "birds" / "0.png"), "class 'birds' in .* needs 2 images"),
        (
            lambda folder: two_classes(folder / "train"),
            "needs a folder of tests next to train, or classes alone, got cats, dogs",
        ),
        (
            lambda folder: save(
                two_classes(two_classes(folder / "train").parent / "test") / "a/0.png"
            ),
            "the same classes; only one of them has a",
        ),
        (
            lambda folder: (folder / "cats" / "broken.png").write_text("no image"),
            "broken.png is not a readable image: cannot identify",
        ),
        (
            lambda folder: noisy(folder / "cats" / "broken.jpg"),
            "broken.jpg is not a readable image: .*truncated",
        ),
        (
            lambda folder: (folder / "cats" / "broken.png").symlink_to("gone.png"),
            "broken.png is a link that leads nowhere",
        ),
        (
            lambda folder: os.mkfifo(folder / "cats" / "broken.png"),
            "broken.png is not a readable image: it is not a regular file",
        ),
    ],
)
def test_what_is_wrong_with_a_folder(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(two_classes(tmp_path / "pets"))
    with pytest.raises(ValueError, match=message) as error:
        load_dataset(tmp_path / "pets")
    one_line(error)


def test_an_absurdly_large_image_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(ValueError, match=r"\.png is not a readable image: Image size \(48 pixels"):
        load_dataset(two_classes(tmp_path))


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar11", "unknown data set 'cifar11': did you mean cifar10, cifar100"),
        ("sinthetic", "did you mean synthetic"),
        ("???", "did you mean cifar10, cifar100, synthetic"),
        ("", "unknown data set ''"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")) as error:
        load_dataset(name)
    one_line(error)


@pytest.mark.parametrize("name", ["./pets", "some/pets", "/nowhere/pets"])
def test_a_path_that_does_not_exist(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder .*pets does not exist"):
        load_dataset(name)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    path = save(tmp_path / "cat.png")
    with pytest.raises(ValueError, match=r"cat.png is a file; a data set is a folder"):
        load_dataset(path)


@pytest.mark.parametrize("name", ["synthetic", "cifar10"])
def test_image_size_is_for_folders(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 32 x 32, got image_size=64"):
        load_dataset(name, image_size=64)


def test_image_size_needs_a_pixel(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got image_size=0"):
        load_dataset(two_classes(tmp_path), image_size=0)


# ---------------------------------------------------------------- synthetic


@pytest.fixture(scope="module")
def synthetic() -> ImageDataset:
    return load_dataset("synthetic")


def test_synthetic_set(synthetic: ImageDataset) -> None:
    assert synthetic.num_classes == len(set(synthetic.classes)) == 10
    assert synthetic.train_images.shape == (5000, 3, 32, 32)
    assert synthetic.test_images.shape == (1000, 3, 32, 32)
    assert synthetic.train_images.dtype == torch.uint8
    assert torch.bincount(synthetic.train_labels).tolist() == [500] * 10
    assert torch.bincount(synthetic.test_labels).tolist() == [100] * 10
    assert torch.bincount(synthetic.train_labels[:500]).min() > 25  # the order is random


def test_synthetic_set_is_always_the_same(synthetic: ImageDataset) -> None:
    torch.manual_seed(1)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(threads % 2 + 1)
    try:
        again = load_dataset("synthetic")
    finally:
        torch.set_num_threads(threads)
    for split in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(again, split), getattr(synthetic, split))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_linear_classifier_stays_poor_on_the_synthetic_set(synthetic: ImageDataset) -> None:
    train = to_float(synthetic.train_images).flatten(1) - 0.5
    test = to_float(synthetic.test_images).flatten(1) - 0.5
    targets = nn.functional.one_hot(synthetic.train_labels, 10).float() - 0.1
    gram, moments = train.T @ train, train.T @ targets
    for ridge in (100.0, 10_000.0):
        weights = torch.linalg.solve(gram + ridge * torch.eye(len(gram)), moments)
        right = (test @ weights).argmax(1) == synthetic.test_labels
        assert right.float().mean() < 0.3


# ---------------------------------------------------------------- command line


def test_command_says_where_and_how_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_archive(tmp_path)
    assert command_line.main(["data", "cifar10", "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (
        f"cifar10: 200 training and 100 test images in 10 classes, {path}\n"
    )
    folder = two_classes(tmp_path / "pets")
    assert command_line.main(["data", str(folder)]) == 0
    assert capsys.readouterr().out == (
        "pets: 8 training and 2 test images in 2 classes, 32 x 32 squashed; "
        f"20% of each class held out to test, {folder}\n"
    )
    assert command_line.main(["data", "synthetic"]) == 0
    assert capsys.readouterr().out.startswith("synthetic: 5000 training and 1000 test images")


@pytest.mark.parametrize("name", ["cifar11", "./nowhere", "cifar10"])
def test_command_refuses_in_one_line(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BSCONV_OFFLINE", "1")
    assert command_line.main(["data", name]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("bsconv data: ")
    assert captured.err.count("\n") == 1
