"""``bsconv spectra``: the table of any network, and one clear line for whatever is wrong."""

import re
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from bsconv.__main__ import main
from bsconv.experiments import plotting
from bsconv.pytorch import get_model, spectra_table

Captured = pytest.CaptureFixture[str]
Failure = Callable[..., str]
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


def test_a_file_alone(weights: Path, network: nn.Module, capsys: Captured) -> None:
    state = network.state_dict()
    assert main(["spectra", str(weights)]) == 0
    assert capsys.readouterr() == (f"{spectra_table(state)}\n", "")
    assert main(["spectra", str(weights), "--no-center"]) == 0
    assert capsys.readouterr().out == f"{spectra_table(state, center=False)}\n"


def test_a_model_with_weights_of_any_number_of_classes(
    network: nn.Module, tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "weights.pth"
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, path)
    assert main(["spectra", MODEL, "--weights", str(path)]) == 0
    assert capsys.readouterr() == (f"{spectra_table(network)}\n", "")
    assert main(["spectra", str(path)]) == 0
    assert capsys.readouterr().out == f"{spectra_table(network.state_dict())}\n"


def test_weights_tell_no_groups_but_the_model_does(tmp_path: Path, capsys: Captured) -> None:
    model = torchvision.models.shufflenet_v2_x0_5()
    path = tmp_path / "weights.pt"
    torch.save(model.state_dict(), path)
    line = ["spectra", "torchvision:shufflenet_v2_x0_5", "--weights", str(path)]
    assert main(line) == 0
    assert capsys.readouterr().out == f"{spectra_table(model)}\n"


@pytest.mark.parametrize("name", [MODEL, "torchvision:squeezenet1_1", "pytorchcv:resnet20_cifar10"])
def test_random_weights_are_said_to_be_random(name: str, capsys: Captured) -> None:
    tables = []
    for _ in range(2):
        assert main(["spectra", name, "--num-classes", "10"]) == 0
        captured = capsys.readouterr()
        assert captured.err.startswith(f"bsconv spectra: {name} starts from random weights; --weig")
        assert captured.err.count("\n") == 1
        tables.append(captured.out)
    assert tables[0] == tables[1]
    assert "convolutions compared" in tables[0]


def test_csv(weights: Path, network: nn.Module, tmp_path: Path, failure: Failure) -> None:
    path, expected = tmp_path / "table.csv", tmp_path / "expected.csv"
    assert main(["spectra", str(weights), "--csv", str(path)]) == 0
    spectra_table(network).to_csv(expected)
    assert path.read_text() == expected.read_text()
    missing = tmp_path / "none" / "table.csv"
    assert f"cannot write {missing}" in failure("spectra", weights, "--csv", missing)


STARTS = {".png": b"\x89PNG", ".PDF": b"%PDF", ".svg": b"<?xml"}


@pytest.mark.parametrize("suffix", STARTS)
def test_a_figure(suffix: str, weights: Path, tmp_path: Path) -> None:
    path = tmp_path / f"figure{suffix}"
    path.write_bytes(b"an older one")
    assert main(["spectra", str(weights), "--out", str(path)]) == 0
    assert path.read_bytes().startswith(STARTS[suffix])
    assert sorted(tmp_path.iterdir()) == sorted([path, weights])


def test_a_figure_shows_the_shares_of_each_layer(
    weights: Path, network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, Any] = {}
    draw = plotting.layer_boxes

    def noted(*arguments: Any, **labels: str) -> Any:
        shown.update(labels, arguments=arguments)
        return draw({"a": [0.5]}, [0.2], **labels)

    monkeypatch.setattr(plotting, "layer_boxes", noted)
    line = ["spectra", str(weights), "--no-center", "--out", str(tmp_path / "figure.png")]
    assert main(line) == 0
    layers, random, excess = shown["arguments"]
    rows = spectra_table(network, center=False).compared
    assert list(layers) == [row.name for row in rows]
    for row, shares in zip(rows, layers.values(), strict=True):
        assert float(shares.quantile(0.5)) == pytest.approx(row.median)
    assert random == [row.random for row in rows]
    assert excess["within kernels"] == [row.excess for row in rows]
    assert excess["across kernels"] == [row.cross_excess for row in rows]
    assert shown["ylabel"] == "first share of energy"
    assert shown["title"].startswith("weights.safetensors: ")


def test_default_weights_are_those_of_torchvision(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    model = torchvision.models.squeezenet1_1()
    asked = []

    def fetch(url: str, *_: object, **__: object) -> dict[str, Any]:
        asked.append(url)
        return model.state_dict()

    monkeypatch.delenv("BSCONV_OFFLINE", raising=False)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fetch)
    assert main(["spectra", "torchvision:squeezenet1_1", "--weights", "DEFAULT"]) == 0
    assert capsys.readouterr() == (f"{spectra_table(model)}\n", "")
    assert asked == [torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url]


def test_default_weights_of_our_own(capsys: Captured) -> None:
    assert main(["spectra", MODEL, "--weights", "DEFAULT"]) == 0
    table = spectra_table(get_model(MODEL, 10, pretrained="cifar10"))
    assert capsys.readouterr() == (f"{table}\n", "")


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "pytorchcv:squeezenet_v1_1"])
def test_default_weights_without_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Failure
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service\nnot known")

    monkeypatch.delenv("BSCONV_OFFLINE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setattr("requests.get", refuse, raising=False)
    printed = failure("spectra", name, "--weights", "DEFAULT")
    assert f"cannot get the weights of {name} (" in printed
    assert f"--weights FILE takes a file of weights of {name} instead" in printed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("figure.jpg", "needs to end in .png, .pdf, .svg, got figure.jpg"),
        ("figure", "needs to end in .png, .pdf, .svg, got figure"),
        ("none/figure.png", "cannot write .*none/figure.png: No such file or directory"),
        ("folder.png", "cannot write .*folder.png: Is a directory"),
    ],
)
def test_a_figure_that_cannot_be_written_is_said_before_anything_is_computed(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Failure
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    # that there is no such model would be said if it were looked for
    assert re.search(message, failure("spectra", "none.pth", "--out", name))
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_a_figure_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Failure
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    printed = failure("spectra", "none.pth", "--out", tmp_path / "figure.png")
    assert "figures need the package matplotlib: pip install 'bsconv[lab]'" in printed


def test_a_figure_of_nothing(tmp_path: Path, failure: Failure) -> None:
    path = tmp_path / "pointwise.pt"
    torch.save(nn.Conv2d(3, 4, 1).state_dict(), path)
    printed = failure("spectra", path, "--out", tmp_path / "figure.png")
    assert "nothing to draw in" in printed
    assert "0 of 1 convolutions compared" in printed
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["damaged.safetensors", "damaged.pt"])
def test_a_file_without_weights(name: str, tmp_path: Path, failure: Failure) -> None:
    path = tmp_path / name
    path.write_bytes(b"nonsense")
    assert f"{path} is damaged or " in failure("spectra", path)
    assert f"{path} is damaged or " in failure("spectra", MODEL, "--weights", path)
    torch.save({"epoch": 3}, tmp_path / "content.pt")
    assert "holds no state dict; it has 'epoch'" in failure("spectra", tmp_path / "content.pt")


def test_weights_of_another_network(weights: Path, failure: Failure) -> None:
    misfit = re.escape(f"the weights in {weights} do not fit ")
    printed = failure("spectra", "cifar_resnet56", "--weights", weights)
    assert re.search(misfit + r"cifar_resnet56: it lacks \S+ and \d+ more\n", printed)
    line = ("spectra", MODEL, "--weights", weights)
    needs = r"needs shape \(100,\), got \(10,\)"
    assert re.search(misfit + rf"{MODEL}: \S+ {needs}", failure(*line, "--num-classes", 100))


FIRST = "backbone.init_unit.conv.conv.weight"  # of shape (16, 3, 3, 3)


@pytest.mark.parametrize(
    ("name", "kernel", "message"),
    [
        (FIRST, torch.zeros(4, 4, 5, 5), r"needs shape \(16, 3, 3, 3\), got \(4, 4, 5, 5\)"),
        (FIRST, torch.full((16, 3, 3, 3), float("nan")), "has NaN"),
        ("extra.weight", torch.zeros(3, 3, 3, 3), f"{MODEL}: it has no extra.weight\n"),
    ],
)
def test_a_kernel_that_does_not_fit(
    name: str, kernel: torch.Tensor, message: str, weights: Path, failure: Failure
) -> None:
    save_file({**load_file(weights), name: kernel}, weights)
    assert re.search(message, failure("spectra", MODEL, "--weights", weights))
