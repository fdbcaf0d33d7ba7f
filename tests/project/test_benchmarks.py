"""The benchmarks: their arithmetic on known times, their turns, and each of them on tiny work."""

import contextlib
import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision

from benchmarks import contenders, engines, inference, published, training
from benchmarks.__main__ import BENCHMARKS, _arguments_of, main, make_parser
from benchmarks.cifar_folder import write_cifar10_folder
from benchmarks.contenders import Contender, ContenderError, seconds_in_turns
from benchmarks.records import Record
from benchmarks.timing import Comparison, Spread
from bsconv.experiments.data import load_dataset
from bsconv.pytorch.inference import ENGINES

TINY = ["--dataset", "synthetic", "--untuned", "--images", "32", "--batch-size", "16"]
ONCE = ["--rounds", "1", "--no-record"]


def fake(turn: Callable[[dict[str, Any]], dict[str, Any]]) -> type:
    """In place of a process: what each turn reports is up to the test."""

    class Fake(contextlib.nullcontext):
        first_seconds = 1.0

        def __init__(self, module: str, threads: int | None, **given: Any) -> None:
            super().__init__(self)
            self.turn = lambda: turn(given)
            self.last = {"how": "as told"}

    return Fake


def test_contenders_take_turns_and_the_first_is_not_counted():
    turns: list[str] = []

    def turn(name: str) -> dict[str, int]:
        turns.append(name)
        return {"seconds": len(turns) - 1}

    fakes = {name: SimpleNamespace(turn=partial(turn, name)) for name in "abc"}
    seconds = seconds_in_turns(fakes, rounds=3)
    assert "".join(turns) == "abcabccbaabc"
    assert seconds == {"a": [3, 8, 9], "b": [4, 7, 10], "c": [5, 6, 11]}


def test_ratios_are_those_of_medians_with_the_extremes_of_single_rounds():
    comparison = Comparison("x", {"ours": [1.0, 2.0, 4.0], "other": [4.0, 6.0, 4.0]})
    assert comparison.time("ours") == Spread(2.0, 1.0, 4.0)
    assert comparison.ratio("other") == Spread(2.0, 1.0, 4.0)
    assert comparison.ratio("ours") == Spread(1.0, 1.0, 1.0)
    assert "2 (1 to 4) times ours" in str(comparison)
    assert str(Spread(1258.4, 0.01234, 99.96)) == "1258 (0.0123 to 100)"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_command_line_has_defaults_help_and_checks(name, capsys):
    alone = make_parser().parse_args([name, "--rounds", "2"])
    everything = make_parser().parse_args(["all", "--rounds", "2"])
    assert vars(_arguments_of(name, everything)) == {**vars(alone), "benchmark": "all"}
    for arguments, words in (
        ([name, "--help"], "--machine"),
        ([name, "--rounds", "0"], "must be a whole number >= 1, got '0'"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        printed = capsys.readouterr()
        assert words in printed.out + printed.err


def test_a_record_names_the_class_of_the_machine_and_overwrites_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.records.current_commit", lambda: "abc")
    comparison = Comparison("x", {"ours": [1.0], "numpy": [3.0]}, notes={"ours": "how"})
    for number in (1, 2):
        record = Record("2 CPU cores (x86-64)", folder=tmp_path / "results")
        for _ in range(number):
            record.add(comparison)
            record.write()
    names = sorted(path.name[10:] for path in (tmp_path / "results").iterdir())
    assert names == ["-2-cpu-cores-x86-64-2.json", "-2-cpu-cores-x86-64.json"]
    content = json.loads(record.path.read_text())
    assert content["machine"] == "2 CPU cores (x86-64)"
    assert [each["seconds"] for each in content["comparisons"]] == [comparison.seconds] * 2
    ratio = content["comparisons"][0]["ratios"]["numpy"]
    assert ratio == {"middle": 3.0, "low": 3.0, "high": 3.0}


def test_torchvision_reads_the_same_images_from_the_folder(tmp_path: Path, monkeypatch):
    dataset = load_dataset("synthetic").limited(train=12, test=3)
    write_cifar10_folder(tmp_path, dataset)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    for train, images, labels in (
        (True, dataset.train_images, dataset.train_labels),
        (False, dataset.test_images, dataset.test_labels),
    ):
        read = torchvision.datasets.CIFAR10(str(tmp_path), train=train)
        assert torch.equal(torch.from_numpy(read.data).permute(0, 3, 1, 2), images)
        assert read.targets == labels.tolist()
    meta = pickle.loads((tmp_path / "cifar-10-batches-py" / "batches.meta").read_bytes())
    assert meta == {"label_names": list(dataset.classes)}


@pytest.mark.slow
def test_a_contender_that_ends_early_is_an_error():
    with Contender("turns") as turns, pytest.raises(ContenderError, match="turns ended with 0"):
        turns.turn()


@pytest.mark.slow
def test_an_epoch_of_ours_and_of_the_published_script(capsys):
    model = ["--models", "cifar_wrn16_1_bsconvu", "--without", "dense", "--workers", "1"]
    assert main(["training", *model, *TINY, *ONCE]) == 0
    printed = capsys.readouterr().out
    assert "epoch of cifar_wrn16_1_bsconvu, 5,000 images (measured on 32)" in printed
    assert "  ours" in printed
    assert ("  published" in printed) == published.is_installed()
    assert ("pip install" in printed) != published.is_installed()
    assert "dense" not in printed


def test_a_part_is_scaled_up_but_for_the_start(monkeypatch):
    def turn(given):
        dense = given["model"] == "cifar_wrn16_1"
        return {"startup": 2.0, "seconds": 6.0} if dense else {"startup": 0, "seconds": 3.0}

    monkeypatch.setattr(training, "Contender", fake(turn))
    model = ["--models", "cifar_wrn16_1_bsconvu", "--without", "published"]
    arguments = make_parser().parse_args(["training", *model, *TINY, "--images", "50"])
    (comparison,) = training.run(arguments)
    assert comparison.seconds == {"ours": [300.0] * 5, "dense": [402.0] * 5}


@pytest.mark.slow
def test_replacing_does_without_the_published_package(capsys, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(published, "PEER", tmp_path)
    assert main(["replacing", "--models", "squeezenet1_1", "--variants", "S", *ONCE]) == 0
    printed = capsys.readouterr().out
    assert "pip install --no-deps --target .peer bsconv==0.4.0" in printed
    assert "replacing by BSConv-S in squeezenet1_1" in printed


@pytest.mark.slow
def test_spectra_and_numpy(capsys):
    assert main(["spectra", "--model", "squeezenet1_1", *ONCE]) == 0
    assert " times ours" in capsys.readouterr().out


def test_calls_of_a_model_dense_and_published(monkeypatch):
    def turn(given):
        return {"seconds": 1.0 if given["variant"] == "U" and not given["published"] else 2.0}

    monkeypatch.setattr(contenders, "Contender", fake(turn))
    monkeypatch.setattr(inference, "is_installed", lambda: True)
    arguments = make_parser().parse_args(["inference", "--models", "resnet18", "--size", "32"])
    in_float32, in_bfloat16 = inference.run(arguments)
    model = "resnet18, BSConv-U, 16x3x32x32"
    assert (in_float32.what, in_bfloat16.what) == (f"{model}, float32", f"{model}, bfloat16")
    assert in_float32.seconds == {"ours": [1.0] * 5, "dense": [2.0] * 5, "published": [2.0] * 5}
    assert in_float32.notes == dict.fromkeys(in_float32.seconds, "as told")


def test_engines_take_turns_at_a_model_and_its_forms(monkeypatch, capsys):
    seconds = {"eager": 2.0, "onnxruntime": 1.0}
    turn = fake(lambda given: {"seconds": seconds[given["engine"]]})
    monkeypatch.setattr(contenders, "Contender", turn)
    for name, engine in ENGINES.items():
        missing = "needs openvino" if name == "openvino" else ""
        monkeypatch.setattr(engine, "missing", lambda missing=missing: missing)
    asked = ["engines", "--size", "32", "--engines", "eager", "onnxruntime", "--variants"]
    dense, blueprint, *_ = engines.run(make_parser().parse_args([*asked, "dense", "U"]))
    assert dense.what == "resnet18, 1x3x32x32"
    assert blueprint.what == "resnet18, BSConv-U, 1x3x32x32"
    assert dense.ratio("onnxruntime").middle == 0.5
    assert capsys.readouterr().out == ""
    assert engines._engines(None) == ["eager", "compiled", "onnxruntime"]
    assert "engines: without openvino-bf16, which needs openvino" in capsys.readouterr().out
    with pytest.raises(ValueError, match="openvino needs openvino"):
        engines._engines(["eager", "openvino"])
