"""Data sets: archives and their download, names, the synthetic set."""

import dataclasses
import http.client
import socket
import sys
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bsconv.experiments import data
from bsconv.experiments.data._archives import TIMEOUT

PARTS = ("train_images", "train_labels", "test_images", "test_labels")
NOT_WHOLE = "is not a complete cifar10 archive"


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch, tmp_path_factory, no_network) -> None:
    """No data of this machine is in sight, nor a network."""
    monkeypatch.delenv("BSCONV_DATA", raising=False)
    monkeypatch.delenv("BSCONV_OFFLINE", raising=False)
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


def arrays(classes: int = 10, train: int = 200, test: int = 100) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "train_images": random.integers(0, 256, (train, 32, 32, 3), np.uint8),
        "train_labels": np.arange(train) % classes,
        "test_images": random.integers(0, 256, (test, 32, 32, 3), np.uint8),
        "test_labels": np.arange(test) % classes,
        "classes": np.array([f"class {label}" for label in range(classes)]),
    }


def write_archive(folder: Path, **changed: Any) -> Path:
    """A small archive; ``changed`` arrays differ from a good one, ``None`` leaves them out."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {key: value for key, value in (arrays() | changed).items() if value is not None}
    np.savez(folder / "cifar10.npz", **content)
    return folder / "cifar10.npz"


def refusal(kind: type[Exception], match: str, name: Any = "cifar10", **options: Any) -> str:
    """What ``load_dataset`` says, on one line."""
    with pytest.raises(kind, match=match) as error:
        data.load_dataset(name, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- ImageDataset


@pytest.fixture
def small() -> data.ImageDataset:
    images, labels = torch.zeros(6, 3, 4, 5, dtype=torch.uint8), torch.tensor([0, 1] * 3)
    return data.ImageDataset("small", ("a", "b"), images, labels, images[:4], 1 - labels[:4])


def test_checksum_is_of_all_that_is_in_a_dataset(small: data.ImageDataset) -> None:
    assert (small.num_classes, small.image_size) == (2, (4, 5))
    sets = [small, dataclasses.replace(small, classes=("b", "a"))]
    for part in PARTS:
        tensor = getattr(small, part).clone()
        tensor[-1] = 1 - tensor[-1]
        sets.append(dataclasses.replace(small, **{part: tensor}))
        sets.append(dataclasses.replace(small, **{part: tensor[1:]}))
    assert len({each.checksum for each in sets}) == len(sets)
    same = dataclasses.replace(small, train_images=small.train_images.clone())
    assert same.checksum == small.checksum


def test_limited_takes_the_first_images_or_all_and_to_moves_them(small) -> None:
    assert all(getattr(small.to("meta"), part).is_meta for part in PARTS)
    limited = small.limited(train=3, test=2)
    assert limited.train_images.shape == (3, 3, 4, 5)
    assert (limited.train_labels.tolist(), limited.test_labels.tolist()) == ([0, 1, 0], [1, 0])
    assert limited.classes == ("a", "b")
    for all_of_them in (small.limited(), small.limited(train=100, test=None)):
        assert (len(all_of_them.train_labels), len(all_of_them.test_labels)) == (6, 4)


# ---------------------------------------------------------------- archives


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["u1", ">i4", "<i8"])
def test_archive_becomes_channels_first_tensors(tmp_path, name, classes, save, dtype):
    content = arrays(classes)
    content["train_labels"] = content["train_labels"].astype(dtype)
    save(tmp_path / f"{name}.npz", **content)
    dataset = data.load_dataset(name, tmp_path)
    assert (dataset.name, dataset.classes) == (name, tuple(content["classes"]))
    for split in ("train", "test"):
        images, labels = getattr(dataset, f"{split}_images"), getattr(dataset, f"{split}_labels")
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert images.is_contiguous()
        stored = content[f"{split}_images"].transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(images.numpy(), stored)
        np.testing.assert_array_equal(labels.numpy(), content[f"{split}_labels"])


def test_root_goes_before_environment_and_working_directory(tmp_path, monkeypatch) -> None:
    for folder, count in ((tmp_path / "root", 11), (tmp_path / "environment", 12), ("data", 13)):
        limited = {key: arrays()[key][:count] for key in ("train_images", "train_labels")}
        write_archive(Path(folder), **limited)

    def size(root: Path | None = None) -> int:
        return len(data.load_dataset("cifar10", root).train_images)

    assert size() == 13
    monkeypatch.setenv("BSCONV_DATA", str(tmp_path / "environment"))
    assert size() == 12
    assert size(tmp_path / "root") == 11
    monkeypatch.setenv("BSCONV_DATA", str(tmp_path / "elsewhere"))  # the only one looked in
    monkeypatch.setenv("BSCONV_OFFLINE", "1")
    refusal(data.DatasetNotFoundError, "elsewhere")


def test_notebooks_find_the_data_beside_their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    project = Path.cwd()
    Path("notebooks").mkdir()
    monkeypatch.chdir("notebooks")
    assert data.data_folder() == project / "data"
    Path("data").mkdir()
    assert data.data_folder() == project / "notebooks" / "data"
    monkeypatch.setenv("HOME", str(project))
    assert data.data_folder("~/sets") == project / "sets"


ZEROS, LABELS = np.zeros((200, 32, 32, 3), np.uint8), np.arange(200) % 10


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": None, "test_labels": None}, "it lacks test_labels, classes"),
        (
            {"train_images": ZEROS.transpose(0, 3, 1, 2)},
            r"train_images needs uint8 \[N, 32, 32, 3\], got uint8 \[200, 3, 32, 32\]",
        ),
        ({"test_images": ZEROS.astype("f4")}, r"test_images needs uint8 .* got float32"),
        (
            {"train_images": ZEROS[:0], "train_labels": LABELS[:0]},
            r"train_images needs .* got uint8 \[0, 32, 32, 3\]",
        ),
        ({"train_labels": LABELS[1:]}, r"train_labels needs 200 integers, got int64 \[199\]"),
        ({"test_labels": np.zeros(100)}, "test_labels needs 100 integers, got float64"),
        ({"train_labels": np.arange(200) % 11}, "train_labels needs 0 to 9, got 0 to 10"),
        ({"test_labels": LABELS[:100] - 1}, "test_labels needs 0 to 9, got -1 to 8"),
        ({"classes": np.array(["a", "b"])}, r"classes needs 10 names, got <U1 \[2\]"),
        ({"classes": np.arange(10)}, r"classes needs 10 names, got int64 \[10\]"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = write_archive(tmp_path, **changed)
    assert str(path) in refusal(ValueError, message, root=tmp_path)
    assert path.exists()


def test_another_file_is_named(tmp_path: Path) -> None:
    """A changed bit may make a header one of Python 2 to NumPy, which reads it in another way."""
    path = write_archive(tmp_path)
    content = path.read_bytes()
    start = content.index(b"\x93NUMPY")
    wrong = [b"<html>404 not found</html>", content[start:]]  # the second is an array
    for position in range(start, start + 128):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        wrong.append(changed)
    for each in wrong:
        path.write_bytes(each)
        assert str(path) in refusal(ValueError, NOT_WHOLE, root=tmp_path)


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
        split, content = "train" if train else "test", arrays()
        self.data = content[f"{split}_images"]
        self.targets = content[f"{split}_labels"].tolist()
        self.classes = content["classes"].tolist()


@pytest.fixture
def fake_cifar(monkeypatch: pytest.MonkeyPatch) -> type[FakeCifar]:
    monkeypatch.setattr(FakeCifar, "calls", [], raising=False)
    monkeypatch.setattr("torchvision.datasets.CIFAR10", FakeCifar)
    return FakeCifar


def test_a_missing_archive_is_downloaded_once(tmp_path: Path, fake_cifar: type[FakeCifar]) -> None:
    root = tmp_path / "new" / "folder"
    first = data.load_dataset("cifar10", root)
    assert [call[1:] for call in fake_cifar.calls] == [(True, True), (False, False)]
    assert Path(fake_cifar.calls[0][0]).parent == root  # renaming works within one file system only
    assert [path.name for path in root.iterdir()] == ["cifar10.npz"]
    assert socket.getdefaulttimeout() is None
    assert data.load_dataset("cifar10", root).checksum == first.checksum
    assert len(fake_cifar.calls) == 2
    write_archive(tmp_path)
    assert data.load_dataset("cifar10", tmp_path).checksum == first.checksum


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError("name or service not known"),
        RuntimeError("File not found or corrupted."), http.client.IncompleteRead(b"", 100),
        TimeoutError("timed out"), OSError(28, "No space left on device"), EOFError(),
    ],
    ids=lambda failure: type(failure).__name__,
)  # fmt: skip
def test_a_failed_download_leaves_nothing_behind(tmp_path, fake_cifar, monkeypatch, failure):
    def fail(self: FakeCifar, root: str, **_: Any) -> None:
        (Path(root) / "half a download").write_bytes(b"...")
        raise failure

    monkeypatch.setattr(fake_cifar, "__init__", fail)
    folder = tmp_path / "new" / "folder"
    said = refusal(data.DatasetNotFoundError, "fetching it failed .*put it there", root=folder)
    assert str(folder) in said
    assert list(folder.iterdir()) == []
    assert socket.getdefaulttimeout() is None


def test_where_nothing_can_be_fetched(tmp_path, fake_cifar, monkeypatch):
    (tmp_path / "file").touch()
    refusal(data.DatasetNotFoundError, "Not a directory", root=tmp_path / "file" / "data")
    monkeypatch.setenv("BSCONV_OFFLINE", "1")
    offline = r"no cifar10.npz in .*BSCONV_OFFLINE is set: allow the download, or"
    assert str(tmp_path) in refusal(data.DatasetNotFoundError, offline, root=tmp_path)
    assert fake_cifar.calls == []
    monkeypatch.setenv("BSCONV_OFFLINE", "0")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", None)
        refusal(data.DatasetNotFoundError, "import of torchvision halted", root=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert data.load_dataset("cifar10", tmp_path).num_classes == 10


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar11", "unknown data set 'cifar11', did you mean cifar10 or cifar100"),
        ("sinthetic", "did you mean synthetic"),
        ("???", "there are cifar10, cifar100, synthetic"),
        ("", "unknown data set ''"),
        ("data.png", "data.png is a file; a data set is a folder"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    Path("data.png").touch()
    refusal(ValueError, message, name)


def test_paths_that_do_not_exist_and_sizes_of_what_is_no_folder() -> None:
    for path in ("./pets", "some/pets", "/nowhere/pets"):
        refusal(FileNotFoundError, "the folder .*pets does not exist", path)
    for name in ("synthetic", "cifar10"):
        refusal(ValueError, f"{name} is 32 x 32, got image_size=64", name, image_size=64)


# ---------------------------------------------------------------- synthetic


@pytest.fixture(scope="module")
def synthetic() -> data.ImageDataset:
    return data.load_dataset("synthetic")


def test_synthetic_set(synthetic: data.ImageDataset) -> None:
    assert synthetic.num_classes == len(set(synthetic.classes)) == 10
    assert synthetic.train_images.shape == (5000, 3, 32, 32)
    assert synthetic.test_images.shape == (1000, 3, 32, 32)
    assert torch.bincount(synthetic.train_labels).tolist() == [500] * 10
    assert torch.bincount(synthetic.test_labels).tolist() == [100] * 10
    assert torch.bincount(synthetic.train_labels[:500]).min() > 25  # the order is random


def test_synthetic_set_is_always_the_same(synthetic: data.ImageDataset) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    torch.set_num_threads(torch.get_num_threads() % 2 + 1)
    assert data.load_dataset("synthetic").checksum == synthetic.checksum
    assert torch.equal(torch.get_rng_state(), state)


def test_a_linear_classifier_stays_poor_on_the_synthetic_set(synthetic: data.ImageDataset) -> None:
    train = data.to_float(synthetic.train_images).flatten(1) - 0.5
    test = data.to_float(synthetic.test_images).flatten(1) - 0.5
    targets = nn.functional.one_hot(synthetic.train_labels, 10).float() - 0.1
    gram, moments = train.T @ train, train.T @ targets
    for ridge in (100.0, 10_000.0):
        weights = torch.linalg.solve(gram + ridge * torch.eye(len(gram)), moments)
        assert ((test @ weights).argmax(1) == synthetic.test_labels).float().mean() < 0.3


# ---------------------------------------------------------------- command line


def test_command_says_where_and_how_many(tmp_path: Path, said: Any) -> None:
    path = write_archive(tmp_path)
    counted = f"cifar10: 200 training and 100 test images in 10 classes, {path}\n"
    assert said("data", "cifar10", "--data", tmp_path).out == counted
    assert said("data", "synthetic").out.startswith("synthetic: 5000 training and 1000 test images")
