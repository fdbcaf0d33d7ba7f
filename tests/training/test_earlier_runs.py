"""Runs that were begun before the trainer was split into its parts go on, and are read."""

import tarfile
from pathlib import Path

import pytest
import torch
from torch import nn

from bsconv.experiments.files.checkpoints import read_trained
from bsconv.pytorch import BSConvS, BSConvU
from helpers.small_runs import noise, run, use, weights

SETTINGS = {"epochs": 4, "recipe": "fast"}


def net(classes: int) -> nn.Module:
    layers = BSConvU(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), BSConvS(4, 6, 3)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(6, classes)
    return nn.Sequential(*layers, *head)


def test_a_run_stopped_after_two_epochs_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the weights that the code of that time reached, up to rounding on other machines."""
    use(monkeypatch, net, noise())
    with tarfile.open(Path(__file__).with_name("earlier_run.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    trained = read_trained(tmp_path / "model.safetensors")
    assert (trained.num_classes, trained.config.epochs) == (4, 4)
    history = run(resume=True, out=tmp_path / "half", **SETTINGS)
    assert [row.epoch for row in history] == [1, 2, 3, 4]
    torch.testing.assert_close(weights(history), trained.state, rtol=1e-3, atol=1e-4)
    net(4).load_state_dict(trained.state)
