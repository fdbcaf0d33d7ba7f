"""Models that the user's own code makes: FILE.py:FACTORY and package.module:FACTORY."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from bsconv.experiments.config import TrainConfig
from bsconv.experiments.files.checkpoints import write_trained
from bsconv.experiments.model_sources import build_model

CODE = """
from torch import nn
import layers_of_mine
class Net(nn.Sequential):
    def __init__(self, num_classes=3):
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
def fixed(): return Net(5)
def signals(): return nn.Sequential(nn.Conv1d(2, 8, 3), nn.ReLU(), nn.Conv1d(8, 8, 3))
def broken(num_classes): return 1 / 0
def leave(): exit(1)
def number(): return 7
class Pair(Net):
    def forward(self, images): return (x := super().forward(images)), x.softmax(1)
class Named(Net):
    def forward(self, images): return {"logits": super().forward(images)}
def empty(): return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
def frozen(): return Net(3).requires_grad_(False)
layers = layers_of_mine.LAYERS
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with code; the list of what was named lies in it as well."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(CODE)
    (tmp_path / "layers_of_mine.py").write_text("LAYERS = 3\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "classes"), [("nets.py:Net", 7), ("nets.py:fixed", 5), ("nets:Net", 7)]
)
def test_a_factory_of_ones_own(name: str, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(".")
    assert build_model(name, 7)(torch.zeros(2, 3, 8, 8)).shape == (2, classes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nets.py:Nett", "nets.py has no function or class 'Nett', did you mean Net?"),
        ("nets.py:layers", "nets.py has no function or class 'layers'\n"),
        ("nets.py:broken", "nets.py:broken fails: ZeroDivisionError: division by zero"),
        ("nets.py:leave", "nets.py:leave fails: SystemExit: 1"),
        ("nets.py:number", "nets.py:number needs to make a torch.nn.Module, got 7"),
        ("none.py:Net", "none.py is not there"),
        ("nets.py", "nets.py needs the function that makes it: nets.py:FACTORY"),
    ],
)
def test_what_is_wrong_is_one_line(name: str, message: str, failure: Any) -> None:
    assert message in failure("plan", name)


def test_a_network_for_signals(said: Any) -> None:
    plan = ("plan", "nets.py:signals")
    assert "kept: Conv1d is not a Conv2d" in said(*plan).out
    assert "3 Conv1d becomes BSConv-U" in said(*plan, "--dimensions", "1", "2").out
    profile = said("profile", "nets.py:signals", "--input-size", "2x100").out
    assert "on 1x2x100: 256 parameters" in profile


def test_a_run_remembers_its_model(images: Path, here: Path, monkeypatch, said: Any) -> None:
    settings = ("--image-size", "8", "--epochs", "1", "--device", "cpu", "--batch-size", "8")
    said("train", "--model", "nets.py:Net", "--dataset", images, *settings, "--out", here / "run")
    of_run = ("nets.py:Net", "--checkpoint", here / "run")
    said("export", *of_run, "--format", "exported-program", "--out", "x.pt2")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    said("evaluate", "--checkpoint", here / "run")


def test_a_file_cannot_have_code_run(here: Path, failure: Any) -> None:
    (here / "evil nets.py").write_text("open('trace', 'w')\ndef make(): pass\n")
    written = here / "model.safetensors"
    for name in (f"{here}/evil nets.py:make", "evil:make"):
        write_trained(written, build_model("nets.py:Net", 3), TrainConfig(name), 3)
        said = failure("export", "--checkpoint", written, "--format", "onnx", "--out", "x.onnx")
        assert "is code that makes a model, which a file names" in said
        assert shlex.split(said)[-3:] == ["bsconv", "plan", name]
    assert not (here / "trace").exists()


def test_a_list_of_names_that_cannot_be_written_is_said(here: Path) -> None:
    (here / "torch").touch()
    with pytest.warns(UserWarning, match="nets.py:Net cannot be remembered: .*torch"):
        build_model("nets.py:Net", 3)


def test_a_model_without_weights_to_train(images: Path, failure: Any) -> None:
    train = ("train", "--dataset", images, "--image-size", 8, "--device", "cpu", "--out", "run")
    for name, kind in (("empty", "Sequential"), ("frozen", "Net")):
        said = failure(*train, "--model", f"nets.py:{name}")
        assert f"model needs weights to train, got {kind} without any" in said
    assert not Path("run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "file"), [("onnx", "x.onnx"), ("exported-program", "x.pt2")])
def test_export_compares_the_first_of_several_outputs(kind: str, file: str, said: Any) -> None:
    line = ("export", "nets.py:Pair", "--num-classes", "3", "--input-size", "16")
    printed = said(*line, "--format", kind, "--out", file).out
    assert "the same class for 100.0 % of 1 images" in printed


def test_outputs_by_name_are_refused_in_one_line(images: Path, failure: Any) -> None:
    message = "a classifier needs to answer with a tensor, or several, got a dict"
    train = ("train", "--model", "nets.py:Named", "--dataset", images, "--device", "cpu")
    assert message in failure(*train, "--image-size", "8")
    export = ("export", "nets.py:Named", "--num-classes", "3", "--format", "onnx")
    assert message in failure(*export, "--out", "x.onnx")
