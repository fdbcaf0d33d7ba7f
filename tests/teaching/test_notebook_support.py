"""What every notebook starts with: mode, seeds, threads, style and data."""

import random

import matplotlib as mpl
import numpy as np
import pytest
import torch

from bsconv.experiments.data import DatasetNotFoundError, ImageDataset
from bsconv.experiments.plotting import COLOURS
from bsconv.teaching import notebook
from bsconv.teaching.notebook import Session, describe, find_dataset, start, title_suffix


def dataset(name: str) -> ImageDataset:
    images = torch.zeros(3, 3, 32, 48, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 1])
    return ImageDataset(name, ("cat", "dog"), images, labels, images[:2], labels[:2])


@pytest.mark.parametrize(
    ("value", "cuda", "mode", "device"),
    [
        ("fast", False, "fast", "cpu"),
        ("fast", True, "fast", "cpu"),  # what the stored outputs come from
        ("full", False, "full", "cpu"), ("full", True, "full", "cuda"),
        ("auto", False, "fast", "cpu"), ("auto", True, "full", "cuda"),
        ("", True, "full", "cuda"), (None, False, "fast", "cpu"),
    ],
)  # fmt: skip
def test_mode_and_device(value, cuda, mode, device, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.delenv("BSCONV_MODE", raising=False)
    if value is not None:
        monkeypatch.setenv("BSCONV_MODE", value)
    assert start() == Session(mode, torch.device(device))
    assert start().pick(fast="fast", full="full") == mode


def test_an_unknown_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSCONV_MODE", "quick")
    with pytest.raises(ValueError, match="one of fast, full, auto, got 'quick'"):
        start()


def test_start_seeds_every_generator() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()

    start()
    first = draw()
    assert draw() != first
    start(seed=0)
    assert draw() == first
    start(seed=1)
    assert draw() != first


@pytest.mark.parametrize(
    ("mode", "given", "threads"), [("fast", {}, 2), ("fast", {"threads": 1}, 1), ("full", {}, 3)]
)
def test_a_fast_run_sets_threads_and_a_full_one_does_not(mode, given, threads, monkeypatch) -> None:
    monkeypatch.setenv("BSCONV_MODE", mode)
    torch.set_num_threads(3)
    start(**given)
    assert torch.get_num_threads() == threads


def test_describe_says_what_runs(capsys, monkeypatch) -> None:
    monkeypatch.setenv("BSCONV_MODE", "fast")
    start()
    describe(dataset("cifar10"))
    versions, where, data = capsys.readouterr().out.splitlines()
    assert versions.startswith("bsconv 1.")
    assert f"torch {torch.__version__.partition('+')[0]}" in versions
    assert where.endswith(", mode fast, device cpu, 2 threads")
    assert data == "data: cifar10, 3 training and 2 test images, 32 x 48, 2 classes"
    describe()
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_missing_data_set_gives_the_synthetic_one(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("BSCONV_DATA", str(tmp_path))
    monkeypatch.setenv("BSCONV_OFFLINE", "1")
    found = find_dataset()
    assert found.name == "synthetic"
    reason, then = capsys.readouterr().out.splitlines()
    assert reason.startswith(f"SYNTHETIC DATA: no cifar10.npz in {tmp_path}")
    assert then == "Going on with the synthetic set: what follows is true of it, not of cifar10."
    assert title_suffix(found) == " (synthetic data)"


def test_a_data_set_that_is_there_is_taken_in_silence(capsys, monkeypatch) -> None:
    real = dataset("cifar100")
    monkeypatch.setattr(notebook, "load_dataset", {"cifar100": real}.__getitem__)
    assert find_dataset("cifar100") is real
    assert capsys.readouterr().out == ""
    assert title_suffix(real) == ""


def test_a_broken_archive_is_no_reason_for_synthetic_data(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("BSCONV_DATA", str(tmp_path))
    (tmp_path / "cifar10.npz").write_bytes(b"half of it")
    with pytest.raises(ValueError, match=r"npz is not a complete cifar10 archive") as error:
        find_dataset()
    assert not isinstance(error.value, DatasetNotFoundError)


def test_figures_have_the_style_of_the_project() -> None:
    start()
    assert mpl.rcParams["figure.dpi"] == mpl.rcParams["savefig.dpi"] == 100
    assert mpl.rcParams["image.cmap"] == "cividis"
    curves = list(mpl.rcParams["axes.prop_cycle"])
    assert [curve["color"] for curve in curves] == list(COLOURS)
    assert len({(curve["linestyle"], curve["marker"]) for curve in curves}) == len(curves) == 7
