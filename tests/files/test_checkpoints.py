"""Files that are whole or not there, and read without running what they hold."""

import errno
import itertools
import math
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bsconv.experiments.config import TrainConfig
from bsconv.experiments.files import checkpoints


def model(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


# --- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_failed_write_keeps_the_file_before(tmp_path, monkeypatch, step, error, message):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, step, Mock(side_effect=error))
    said = f"^cannot write {path}: {message}; what was there before is unharmed$"
    with pytest.raises(OSError, match=said):
        checkpoints.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_that_write_at_once_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, plain = tmp_path / "file", os.fsync

    def fsync(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", plain)
        checkpoints.write_atomically(path, b"the other")  # as a whole, while the first is at work
        assert path.read_bytes() == b"the other"
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    checkpoints.write_atomically(path, b"one")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


# --- checkpoints ----------------------------------------------------------------------------------


def test_checkpoint_comes_back_as_it_went(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    written = {"epoch": 3, "model": model().state_dict(), "history": [{"epoch": 1, "x": 0.1}]}
    with pytest.raises(FileNotFoundError):
        checkpoints.read_checkpoint(path)
    checkpoints.write_checkpoint(path, written)
    read = checkpoints.read_checkpoint(path)
    assert read.pop("format")
    torch.testing.assert_close(read.pop("model"), written.pop("model"), rtol=0, atol=0)
    assert read == written


@pytest.mark.parametrize(
    "content", [b"", b"text", torch.zeros(3), {"weight": torch.zeros(3)}, {"format": "older 0"}]
)
def test_what_is_no_checkpoint(tmp_path: Path, content: Any) -> None:
    """More of them among damaged and hostile files."""
    path = tmp_path / "checkpoint.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=f"^{path} is .*not a checkpoint of [^\n]*$"):
        checkpoints.read_checkpoint(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "holds no settings of bsconv train: Expecting"),
        ('{"epochs": 0}', "epochs needs a whole number"),
        ('{"epoch": 1}', "holds no settings of bsconv train: .* 'epoch'"),
        ("\udcff", "holds no settings"),
    ],
)
def test_broken_config(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=message):
        checkpoints.read_config(path)


# --- trained models -------------------------------------------------------------------------------


def test_trained_model_comes_back_as_it_went(tmp_path: Path) -> None:
    path, trained = tmp_path / "model.safetensors", model()
    trained.to(memory_format=torch.channels_last)
    config = TrainConfig(bsconv="s", p=1 / 3, data="/some/where", out=str(tmp_path))
    checkpoints.write_trained(path, trained, config, 3)
    readers = checkpoints.read_trained, checkpoints.read_start
    for source, read_it in itertools.product((path, tmp_path), readers):
        read: Any = read_it(source)
        assert read.num_classes == 3
        assert read.config.difference(config) is None
        torch.testing.assert_close(read.state, dict(trained.state_dict()), rtol=0, atol=0)
    # the file may be passed on: it names no folder of this machine
    assert b"/some/where" not in path.read_bytes()
    assert str(tmp_path).encode() not in path.read_bytes()


def test_tied_weights_are_written_under_both_names(tmp_path: Path) -> None:
    path, one = tmp_path / "model.safetensors", nn.Linear(3, 3)
    checkpoints.write_trained(path, nn.Sequential(one, one), TrainConfig(), 3)
    tensors = checkpoints.read_trained(tmp_path).state
    assert set(tensors) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    torch.testing.assert_close(tensors["1.weight"], one.weight.detach(), rtol=0, atol=0)


def test_folder_of_an_unfinished_run_gives_its_checkpoint(tmp_path: Path) -> None:
    state = {"config": {"epochs": 7}, "num_classes": 3, "model": model().state_dict()}
    checkpoints.write_checkpoint(tmp_path / "checkpoint.pt", state)
    read = checkpoints.read_trained(tmp_path)
    assert (read.config.epochs, read.num_classes) == (7, 3)
    torch.testing.assert_close(read.state, dict(state["model"]), rtol=0, atol=0)


GOOD = {"config": {}, "num_classes": 3, "model": {"a": torch.ones(3)}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_classes": None}, "it lacks 'num_classes'"),
        ({"config": {"epochs": -1}}, "epochs needs a whole number >= 1, got -1"),
        ({"num_classes": 4}, "num_classes is 4, no tensor in it has that many rows"),
        ({"plan": {"a": 1}}, "its plan needs a form for each layer, got {'a': 1}"),
        ({"classes": ["one"]}, r"classes needs 3 names, got \['one'\]"),
        ({"classes": [1, 2, 3]}, r"classes needs 3 names, got \[1, 2, 3\]"),
    ],
)
def test_what_is_no_trained_model(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = tmp_path / "checkpoint.pt"
    content = {key: value for key, value in (GOOD | changed).items() if value is not None}
    checkpoints.write_checkpoint(path, content)
    for read in (checkpoints.read_trained, checkpoints.read_start):
        with pytest.raises(ValueError, match=f"holds no model trained by bsconv train: {message}"):
            read(path)


def test_weights_of_others_are_a_start_and_no_trained_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    assert checkpoints.read_start(path).state.keys() == {"weight"}
    assert (checkpoints.read_start(path).config, checkpoints.read_start(path).plan) == (None, {})
    with pytest.raises(ValueError, match="holds weights that do not say which model they are of"):
        checkpoints.read_trained(path)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    message = r"in .*file do not fit its model: .*weight needs shape \(3, 4\), got \(4, 4\)"
    with pytest.raises(ValueError, match=message):
        checkpoints.load_weights(model(3), model(4).state_dict(), tmp_path / "file")
    integers = {key: tensor.char() for key, tensor in model().state_dict().items()}
    with pytest.raises(
        ValueError, match=r"do not fit its model: .*weight needs floats, got torch.i"
    ):
        checkpoints.load_weights(model(), integers, tmp_path / "file")


@pytest.mark.parametrize(
    ("value", "what"), [(math.nan, "NaN"), (math.inf, "infinite"), (-math.inf, "infinite")]
)
def test_what_is_no_weight(value: float, what: str, tmp_path: Path) -> None:
    weights = model().state_dict()
    weights["1.running_var"][2] = value
    with pytest.raises(ValueError, match=f"file are not all numbers: 1.running_var has {what}"):
        checkpoints.load_weights(model(), weights, tmp_path / "file")


def test_a_model_may_hold_infinite_numbers_itself(tmp_path: Path) -> None:
    masked = model()
    masked.register_buffer("mask", torch.full((2,), -math.inf))
    checkpoints.load_weights(masked, masked.state_dict(), tmp_path / "file")


# --- locking --------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_a_lock_that_was_taken_away_with_its_folder_is_none(tmp_path, monkeypatch):
    import fcntl

    folder, plain = tmp_path / "run", fcntl.flock

    def flock(*arguments: Any) -> None:
        """Another process has held the lock, and removed it with the folder, before we get it."""
        (folder / ".lock").unlink()
        folder.rmdir()
        plain(*arguments)

    folder.mkdir()
    monkeypatch.setattr(fcntl, "flock", flock)
    refused = pytest.raises(ValueError, match="another process is training in")
    with refused, checkpoints.locked(folder):
        pass


def test_without_fcntl_nothing_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with checkpoints.locked(tmp_path), checkpoints.locked(tmp_path):
        pass
