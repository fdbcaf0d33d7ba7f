"""bsconv project: what it prints and writes, that the other commands take it, and wrong input."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from bsconv.experiments.config import TrainConfig
from bsconv.experiments.data import ImageDataset, load_dataset, to_float
from bsconv.experiments.files.checkpoints import read_trained, write_trained
from bsconv.experiments.model_sources import build_model
from bsconv.experiments.training import _inputs
from bsconv.pytorch import load_projected, project_pretrained


@pytest.fixture(scope="session")
def images() -> ImageDataset:
    return load_dataset("synthetic")


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch, images: ImageDataset) -> None:
    monkeypatch.setattr(_inputs, "load_dataset", lambda *_, **__: images)


@pytest.fixture
def dense(tmp_path: Path) -> tuple[nn.Module, Path]:
    """A network whose BatchNorms have seen images, and the file of its weights."""
    model = build_model("cifar_resnet20", 10).train()
    with torch.no_grad():
        model(torch.rand(16, 3, 32, 32))
    save_file(model.state_dict(), tmp_path / "dense.safetensors")
    return model.eval(), tmp_path / "dense.safetensors"


def line(weights: Path, out: Path, *more: object) -> tuple[object, ...]:
    options = ("--weights", weights, "--out", out, "--normalize", "none", "--dataset", "synthetic")
    return ("project", "cifar_resnet20", *options, "--images", 8, *more)


def accuracy(said: Any, *arguments: object) -> str:
    common = ("--dataset", "synthetic", "--test-limit", 50, "--device", "cpu")
    return said("evaluate", *arguments, *common).out.partition("test top-1")[2]


@pytest.mark.parametrize(
    ("kind", "method", "more"), [("u", "batch_norm", []), ("s", "weights", ["--p", "1/2"])]
)
def test_prints_the_report_and_writes_for_others(dense, images, kind, method, more, tmp_path, said):
    model, weights = dense
    out = tmp_path / "out.safetensors"
    kept = weights.read_bytes()
    printed = said(*line(weights, out, "--bsconv", kind, "--method", method, *more)).out
    seen = to_float(images.train_images[:8]).contiguous(memory_format=torch.channels_last)
    student, report = project_pretrained(model, seen, kind, 0.5, method=method, progress=False)
    assert printed.startswith(f"{report}\nmeasure it: bsconv evaluate --checkpoint {out}\n")
    assert printed.endswith(
        f"bsconv train --model cifar_resnet20 --bsconv {kind} {' '.join([*more, ''])}"
        f"--weights {out} --dataset synthetic --out runs/out_trained\n"
    )
    torch.testing.assert_close(read_trained(out).state, dict(student.state_dict()))
    assert weights.read_bytes() == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == [weights.name, out.name]

    first = accuracy(said, "--checkpoint", out)
    named = ("--model", "cifar_resnet20", "--bsconv", kind, *more, "--weights", out)
    assert accuracy(said, *named) == first


@pytest.mark.slow
def test_a_budget_is_kept_and_the_file_says_its_plan(dense, tmp_path, said, failure) -> None:
    model, weights = dense
    out = tmp_path / "out.safetensors"
    printed = said(*line(weights, out, "--budget", "40%")).out
    teacher = f"--teacher {weights} --teacher-model cifar_resnet20"
    assert f"--weights {out} --dataset synthetic {teacher} --recipe finetune --epochs 3" in printed
    student = load_projected(model, out)
    plan = read_trained(out).plan
    assert plan
    for name, form in plan.items():
        kind = type(student.get_submodule(name)).__name__
        assert kind == f"BSConv{form.partition(':')[0].upper()}"
    assert re.search(r"(3\d\.\d|40\.0)% of the MACs", printed)
    named = ("--model", "cifar_resnet20", "--weights", out)
    assert accuracy(said, "--checkpoint", out) == accuracy(said, *named)
    few = tmp_path / "few.safetensors"
    assert "budget needs at least" in failure(*line(weights, few, "--budget", "1%"))
    assert not few.exists()
    said("export", "--format", "onnx", "--checkpoint", out, "--out", tmp_path / "out.onnx")


def test_images_alone_will_do(dense, images, tmp_path, said, monkeypatch) -> None:
    monkeypatch.setattr(_inputs, "load_dataset", load_dataset)
    (folder := tmp_path / "photographs" / "2023").mkdir(parents=True)
    for number, image in enumerate(images.train_images[:3].movedim(1, 3).numpy()):
        Image.fromarray(image).save(folder / f"{number}.png")
    shutil.copytree(folder, folder.with_name("2024"))
    out = tmp_path / "out.safetensors"
    for dataset in (folder, folder.parent):
        more = ("--dataset", dataset, "--bsconv", "u", "--method", "weights")
        assert not re.search("bsconv (evaluate|train)", said(*line(dense[1], out, *more)).out)
        assert (read_trained(out).num_classes, read_trained(out).classes) == (10, ())


def test_the_weights_say_which_images_to_look_at(dense, tmp_path, said, failure, monkeypatch):
    monkeypatch.setattr(_inputs, "load_dataset", load_dataset)
    trained = tmp_path / "run.safetensors"
    line = ("project", "cifar_resnet20", "--weights", trained, "--bsconv", "u", "--images", 8)
    line += ("--method", "weights", "--out", tmp_path / "out.safetensors")
    write_trained(trained, dense[0], TrainConfig(dataset="gone"), 10)
    assert "--dataset is missing: the weights were trained on gone," in failure(*line)
    write_trained(trained, dense[0], TrainConfig(dataset="synthetic"), 10)
    assert "bsconv: synthetic: 8 training" in said(*line).err


@pytest.mark.slow
def test_a_curve_alone_writes_no_network(dense, tmp_path, said) -> None:
    line = ("project", "cifar_resnet20", "--weights", dense[1], "--normalize", "none")
    line += ("--dataset", "synthetic", "--images", 8, "--of", "parameters")
    assert "budgets of parameters" in said(*line, "--curve", tmp_path / "curve.svg").out
    assert "</svg>" in (tmp_path / "curve.svg").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {dense[1].name, "curve.svg"}
