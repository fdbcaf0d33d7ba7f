"""``bsconv spectra``: the table of any network, and one clear line for whatever is wrong."""

import sys
import urllib.error
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from bsconv.experiments import plotting
from bsconv.pytorch import get_model, spectra_table

MODEL = "cifar_resnet20"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return get_model(MODEL, 10)


@pytest.fixture
def weights(network: nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), path)
    return path


# --- good input -----------------------------------------------------------------------------------


def test_a_file_alone(weights: Path, network: nn.Module, tmp_path: Path, said: Any) -> None:
    state, path, expected = network.state_dict(), tmp_path / "table.csv", tmp_path / "expected.csv"
    assert said("spectra", weights, "--csv", path) == (f"{spectra_table(state)}\n", "")
    spectra_table(network).to_csv(expected)
    assert path.read_text() == expected.read_text()
    assert said("spectra", weights, "--no-center").out == f"{spectra_table(state, center=False)}\n"


def test_a_model_with_weights_of_any_number_of_classes(network, tmp_path, said) -> None:
    path = tmp_path / "weights.pth"
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, path)
    assert said("spectra", MODEL, "--weights", path) == (f"{spectra_table(network)}\n", "")
    assert said("spectra", path).out == f"{spectra_table(network.state_dict())}\n"


def test_weights_tell_no_groups_but_the_model_does(tmp_path: Path, said: Any) -> None:
    model = torchvision.models.shufflenet_v2_x0_5()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    line = ("spectra", "torchvision:shufflenet_v2_x0_5", "--weights", tmp_path / "weights.pt")
    assert said(*line).out == f"{spectra_table(model)}\n"


@pytest.mark.parametrize("name", [MODEL, "torchvision:squeezenet1_1", "pytorchcv:resnet20_cifar10"])
def test_random_weights_are_said_to_be_random(name: str, said: Any) -> None:
    first, again = (said("spectra", name, "--num-classes", "10") for _ in range(2))
    assert first == again
    assert first.err.startswith(f"bsconv spectra: {name} starts from random weights; --weig")
    assert first.err.count("\n") == 1
    assert "convolutions compared" in first.out


STARTS = {".png": b"\x89PNG", ".PDF": b"%PDF", ".svg": b"<?xml"}


@pytest.mark.parametrize("suffix", STARTS)
def test_a_figure(suffix: str, weights: Path, tmp_path: Path, said: Any) -> None:
    path = tmp_path / f"figure{suffix}"
    path.write_bytes(b"an older one")
    said("spectra", weights, "--out", path)
    assert path.read_bytes().startswith(STARTS[suffix])
    assert sorted(tmp_path.iterdir()) == sorted([path, weights])


def test_a_figure_shows_the_shares_of_layers(weights, network, tmp_path, monkeypatch, said) -> None:
    draw = Mock(wraps=plotting.layer_boxes)
    monkeypatch.setattr(plotting, "layer_boxes", draw)
    said("spectra", weights, "--no-center", "--out", tmp_path / "figure.png")
    (layers, random, excess), shown = draw.call_args
    rows = spectra_table(network, center=False).compared
    assert list(layers) == [row.name for row in rows]
    for row, shares in zip(rows, layers.values(), strict=True):
        assert float(shares.quantile(0.5)) == pytest.approx(row.median)
    assert random == [row.random for row in rows]
    assert excess["within kernels"] == [row.excess for row in rows]
    assert excess["across kernels"] == [row.cross_excess for row in rows]
    assert shown["ylabel"] == "first share of energy"
    assert shown["title"].startswith("weights.safetensors: ")


def test_default_weights_are_those_of_torchvision(monkeypatch, said: Any) -> None:
    model = torchvision.models.squeezenet1_1()
    fetch = Mock(return_value=model.state_dict())
    monkeypatch.delenv("BSCONV_OFFLINE", raising=False)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fetch)
    line = ("spectra", "torchvision:squeezenet1_1", "--weights", "DEFAULT")
    assert said(*line) == (f"{spectra_table(model)}\n", "")
    assert fetch.call_args[0] == (torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url,)


def test_default_weights_of_our_own(said: Any) -> None:
    table = spectra_table(get_model(MODEL, 10, pretrained="cifar10"))
    assert said("spectra", MODEL, "--weights", "DEFAULT") == (f"{table}\n", "")


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "pytorchcv:squeezenet_v1_1"])
def test_default_weights_without_network(name: str, tmp_path, monkeypatch, failure) -> None:
    refuse = Mock(side_effect=urllib.error.URLError("Name or service\nnot known"))
    monkeypatch.delenv("BSCONV_OFFLINE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setattr("requests.get", refuse, raising=False)
    printed = failure("spectra", name, "--weights", "DEFAULT")
    assert f"cannot get the weights of {name} (" in printed
    assert f"--weights FILE takes a file of weights of {name} instead" in printed


def test_a_figure_without_matplotlib(tmp_path, monkeypatch, failure: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    printed = failure("spectra", "none.pth", "--out", tmp_path / "figure.png")
    assert "figures need the package matplotlib: pip install 'bsconv[lab]'" in printed
