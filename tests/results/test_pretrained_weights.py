"""Weights that come with the package: as measured, undamaged, or refused."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bsconv.experiments.data import load_dataset
from bsconv.experiments.files.checkpoints import read_trained
from bsconv.experiments.training import TrainConfig, evaluate, train
from bsconv.pytorch import get_model
from bsconv.pytorch.models import _registry
from results import record

FILES = sorted(_registry.FOLDER.glob("*/*.safetensors"))
NAMES = [path.stem for path in FILES]


def note(path: Path) -> dict[str, object]:
    return json.loads(path.with_suffix(".json").read_text())


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights in a folder of their own, for the tests to damage."""
    shutil.copytree(_registry.FOLDER, tmp_path / "weights")
    monkeypatch.setattr(_registry, "FOLDER", tmp_path / "weights")
    return tmp_path / "weights" / "cifar10"


def test_there_are_weights_of_both_networks_and_they_are_small() -> None:
    assert {"cifar_resnet20", "cifar_wrn16_1"} <= set(NAMES)
    assert sum(path.stat().st_size for path in _registry.FOLDER.glob("*/*")) < 3e6
    assert {path.stem for path in _registry.FOLDER.glob("*/*.json")} == set(NAMES)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_notes_say_how_the_weights_came_about(path: Path) -> None:
    about = note(path)
    config = TrainConfig.from_dict(about["config"])
    assert (config.model, config.dataset) == (path.stem, path.parent.name)
    assert about["epochs"][-1]["epoch"] == config.epochs
    assert about["epochs"][-1]["test_top1"] == about["test_top1_in_float32"]
    assert abs(about["test_top1"] - about["test_top1_in_float32"]) < 0.05
    assert about["commit"]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_models_start_from_them_in_float32(path: Path) -> None:
    model = get_model(path.stem, 10, pretrained="cifar10")
    saved = load_file(path)
    state = model.state_dict()
    assert all(torch.equal(state[name], value.to(state[name])) for name, value in saved.items())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert state.keys() == saved.keys()


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_they_reach_what_is_written_of_them(path, cifar10_folder, said) -> None:
    line = ("evaluate", "--model", path.stem, "--pretrained", "cifar10", "--data", cifar10_folder)
    assert f"test top-1 {note(path)['test_top1']:.2f} % of 10,000 images" in said(*line).out


@pytest.mark.parametrize(
    "damaged", [lambda all: all[:-1] + bytes([all[-1] ^ 1]), lambda all: all[:-1], lambda all: b""]
)
def test_a_damaged_file_is_refused(copied: Path, damaged: Callable[[bytes], bytes]) -> None:
    path = copied / "cifar_resnet20.safetensors"
    path.write_bytes(damaged(path.read_bytes()))
    expected, found = note(path)["sha256"], hashlib.sha256(path.read_bytes()).hexdigest()
    message = f"its SHA-256 needs to be {expected}, got {found}; install bsconv again"
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is damaged: {message}$"):
        get_model("cifar_resnet20", 10, pretrained="cifar10")


@pytest.mark.parametrize(
    ("architecture", "num_classes", "pretrained", "reason"),
    [
        ("cifar_resnet20", 10, "imagenet", "; there are 'cifar10', 'other'"),
        ("cifar_resnet56", 10, "cifar10", "; it has none"),
        ("cifar_wrn16_1", 10, "../weights/cifar10", "; there are 'cifar10'"),
        ("CIFAR_resnet20", 100, "cifar10", " need num_classes=10, got num_classes=100"),
    ],
)
def test_weights_that_do_not_exist(copied, architecture, num_classes, pretrained, reason) -> None:
    (copied.parent / "other").mkdir()
    shutil.copy(copied / "cifar_resnet20.json", copied.parent / "other")
    message = f" weights pretrained={pretrained!r} (for|of) {architecture!r}{reason}$"
    with pytest.raises(ValueError, match=message):
        get_model(architecture, num_classes, pretrained=pretrained)


def finished(run: Path, model: str, **changes: object) -> list[str]:
    """What packs a run of one epoch that is trained here."""
    settings = {"epochs": 1, "train_limit": 64, "test_limit": 64, "image_size": 16}
    settings |= {"device": "cpu", "recipe": "fast", "out": str(run)}
    train(TrainConfig(model, "synthetic", **settings | changes), progress=False)
    return [str(run), "--machine", "a test", "--commit", "abc", "--weights"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CIFAR_WRN16_1_BSConvU", "cifar_resnet20_bsconvs_p1d4"])
def test_runs_are_packed_by_name_with_what_was_measured(name, tmp_path, monkeypatch, capsys):
    run, out = tmp_path / "run", tmp_path / "weights"
    given = finished(run, name, test_limit=8, image_size=None)
    data = load_dataset("synthetic").limited(train=8, test=8)
    monkeypatch.setattr(record, "load_dataset", lambda *_: data)
    assert record.main([*given, "--out", str(out)]) == 0
    path = out / "synthetic" / f"{name.lower()}.safetensors"
    assert capsys.readouterr().out == f"{path}\n"
    monkeypatch.setattr(_registry, "FOLDER", out)
    model = get_model(name, 10, pretrained="synthetic")
    assert note(path)["test_top1"] == evaluate(model, data.test_images, data.test_labels)
    made = record.make_record(run, machine="a test")
    assert note(path)["test_top1_in_float32"] == made.epochs[-1].test_top1
    assert note(path)["commit"] == "abc"
    loaded, trained = model.state_dict(), read_trained(run).state
    assert loaded.keys() == trained.keys()
    for key, value in trained.items():
        torch.testing.assert_close(loaded[key], value, rtol=1e-3, atol=1e-5)


def test_a_network_without_a_name_is_not_packed_under_that_of_another(tmp_path, capsys) -> None:
    given = finished(tmp_path / "run", "cifar_wrn16_1", bsconv="u")
    assert record.main([*given, "--out", str(tmp_path / "weights")]) == 2
    error = capsys.readouterr().err
    assert "such as cifar_resnet20_bsconvu, got cifar_wrn16_1 with bsconv='u'" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "weights").exists()
