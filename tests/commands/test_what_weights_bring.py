"""Weights bring the names of their classes, and how images are made for them, to all commands."""

import json
import shlex
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from bsconv.experiments.config import TrainConfig
from bsconv.experiments.files.checkpoints import Start, read_trained, write_trained
from bsconv.experiments.model_sources import build_model
from bsconv.experiments.training import settled, train

NAMES = ["blue", "lime", "red"]
MODEL = "cifar_resnet20"
IMAGES = {"image_size": 16, "resize": "20", "normalize": "imagenet"}


def weights(path: Path, classes: list[str] = NAMES, **settings: Any) -> Path:
    config = TrainConfig(**{"model": MODEL, "dataset": "shots", **IMAGES, **settings})
    write_trained(path, build_model(MODEL, 3).eval(), config, 3, classes=classes)
    return path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (16, "20", "imagenet")),
        ({"image_size": 32}, (32, "40", "imagenet")),
        ({"image_size": 32, "resize": "32,box"}, (32, "32,box", "imagenet")),
        ({"resize": "squash", "normalize": "none"}, (16, "squash", "none")),
        ({"dataset": "cifar10"}, (16, None, "imagenet")),
    ],
)
def test_what_a_run_says_itself_wins(given: Any, expected: tuple[Any, ...]) -> None:
    config = TrainConfig(**{"dataset": "folder", **given})
    found = settled(config, Start({}, {}, TrainConfig(**IMAGES)))
    assert (found.image_size, found.resize, found.normalize) == expected


def test_evaluate_takes_a_file_alike_by_both_options(images, tmp_path, monkeypatch, said) -> None:
    file = weights(tmp_path / "w.safetensors", split=0.5, dataset=str(images / "train"))
    evaluate = Mock(return_value=0.0)
    monkeypatch.setattr("bsconv.experiments.training.evaluate", evaluate)
    for which in (["--checkpoint"], ["--model", MODEL, "--weights"]):
        said("evaluate", *which, file, "--device", "cpu")  # on the images that it has learnt from
        _, tested, _, config = evaluate.call_args[0]
        assert (len(tested), tested.shape[-1], config.image_size) == (12, 16, 16)
        assert str(config.normalization) == "imagenet"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "size", "resize"), [([], 16, "20"), (["--input-size", "32"], 32, "40")]
)
def test_export_notes_the_same_by_both_options(tmp_path, more, size, resize, said) -> None:
    import onnx

    file, out = weights(tmp_path / "w.safetensors"), tmp_path / "x.onnx"
    for which in (["--checkpoint"], [MODEL, "--weights"]):
        said("export", *which, file, "--format", "onnx", "--out", out, *more)
        notes = {each.key: json.loads(each.value) for each in onnx.load(str(out)).metadata_props}
        assert (notes["classes"], notes["input_size"]) == (NAMES, [3, size, size])
        assert (notes["resize"], notes["mean"][0]) == (resize, 0.485)


def test_project_keeps_the_names_of_the_weights(images: Path, tmp_path: Path, said: Any) -> None:
    theirs = ["rosso", "verde", "blu"]
    file, out = weights(tmp_path / "w.safetensors", theirs), tmp_path / "p.safetensors"
    options = ("--bsconv", "u", "--method", "weights", "--dataset", images, "--images", "8")
    said("project", MODEL, "--weights", file, "--out", out, *options)
    kept = read_trained(out)
    assert (kept.classes, kept.config.image_size, kept.config.resize) == (tuple(theirs), 16, "20")


@pytest.mark.parametrize("other", [["red", "lime", "blue"], ["sky", "lime", "red"]])
def test_other_names_or_another_order_are_refused(images, tmp_path, failure, said, other) -> None:
    file = weights(tmp_path / "w.safetensors", other)
    gone = ("evaluate", "--model", MODEL, "--weights", file)
    assert "the weights were trained on shots, which is not here" in failure(*gone)
    message = f"needs its classes {', '.join(other)}, got {images.name} with blue, lime, red"
    for which in (["--checkpoint"], ["--model", MODEL, "--weights"]):
        assert message in failure("evaluate", *which, file, "--dataset", images)
    config: Any = {"dataset": str(images), "image_size": 8, "epochs": 1, "device": "cpu"}
    for teacher_model in (None, MODEL):
        with pytest.raises(ValueError, match=message):
            train(TrainConfig(MODEL, teacher=str(file), teacher_model=teacher_model, **config))
    nameless = weights(tmp_path / "old.safetensors", [])
    said("evaluate", "--checkpoint", nameless, "--dataset", images, "--device", "cpu")


@pytest.mark.parametrize(("learnt", "count"), [("shots", 24), ("train", 12), ("", 24)])
def test_a_folder_new_to_the_weights_is_tested_whole(images, tmp_path, said, learnt, count):
    file = weights(tmp_path / "w.safetensors", split=0.5, dataset=learnt or "train")
    if not learnt:  # as in the files of others, which say nothing
        torch.save(read_trained(file).state, file := tmp_path / "w.pt")
    options = ("--weights", file, "--normalize", "none", "--dataset", images / "train", "--json")
    assert json.loads(said("evaluate", "--model", MODEL, *options).out)["images"] == count


@pytest.mark.slow
@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("how", [("--budget", "50%"), ("--bsconv", "s", "--p", "1/2")])
def test_the_commands_that_project_prints_run(ours, how, images, tmp_path, said) -> None:
    file = weights(tmp_path / "of mine.safetensors")
    given: list[str] = []
    if not ours:
        file, state = tmp_path / "of others.pt", read_trained(file).state
        torch.save(state, file)
        given = ["--image-size", "16", "--resize", "20", "--normalize", "imagenet"]
    line = ("project", MODEL, "--weights", file, "--out", tmp_path / "p.safetensors", *how)
    printed = said(*line, "--dataset", images, "--images", "8", *given).out
    measure, train_on = (each.partition("bsconv ")[2] for each in printed.splitlines()[-2:])
    said(*shlex.split(measure))
    said(*shlex.split(train_on), "--epochs", "1", "--out", tmp_path / "run")
    kept = read_trained(tmp_path / "run")
    assert (kept.config.image_size, kept.config.resize, kept.classes) == (16, "20", tuple(NAMES))
    assert (kept.config.teacher is not None) == bool(kept.plan) == ("--budget" in how)
