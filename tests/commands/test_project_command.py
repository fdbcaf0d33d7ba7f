"""bsconv project: what it prints and writes, that the other commands take it, and wrong input."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from bsconv.__main__ import main
from bsconv.commands import project
from bsconv.experiments.data import ImageDataset, load_dataset, to_float
from bsconv.experiments.files.checkpoints import read_trained
from bsconv.experiments.model_sources import build_model
from bsconv.experiments.training import _inputs
from bsconv.pytorch import get_model, load_projected, project_pretrained
from bsconv.pytorch.pretrained._report import Method

Captured = pytest.CaptureFixture[str]
Failure = Callable[..., str]


@pytest.fixture(scope="session")
def images() -> ImageDataset:
    return load_dataset("synthetic")


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch, images: ImageDataset) -> None:
    monkeypatch.setattr(_inputs, "load_dataset", lambda *_, **__: images)


@pytest.fixture
def dense(tmp_path: Path) -> tuple[torch.nn.Module, Path]:
    """A network whose BatchNorms have seen images, and the file of its weights."""
    model = build_model("cifar_resnet20", 10).train()
    with torch.no_grad():
        model(torch.rand(16, 3, 32, 32))
    save_file(model.state_dict(), tmp_path / "dense.safetensors")
    return model.eval(), tmp_path / "dense.safetensors"


def line(weights: Path, out: Path, *more: object) -> list[str]:
    arguments = ("project", "cifar_resnet20", "--weights", weights, "--out", out)
    arguments += ("--normalize", "none")
    return [str(part) for part in (*arguments, "--dataset", "synthetic", "--images", 8, *more)]


def accuracy(capsys: Captured, *arguments: object) -> str:
    common = ("--dataset", "synthetic", "--test-limit", 50, "--device", "cpu")
    assert main(["evaluate", *map(str, (*arguments, *common))]) == 0
    return capsys.readouterr().out.partition("test top-1")[2]


@pytest.mark.parametrize(("kind", "p"), [("u", 0.25), ("s", 1 / 2), ("s", 1 / 4)])
def test_projected_networks_are_what_build_model_builds(kind: Any, p: float) -> None:
    """Names and shapes of the projected network are those that train and evaluate build."""
    student, _ = project_pretrained(get_model("cifar_resnet20", 10), kind=kind, p=p)
    built = build_model("cifar_resnet20", 10, bsconv=kind, p=p)
    shapes = [{key: value.shape for key, value in m.state_dict().items()} for m in (student, built)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("kind", "method", "more"), [("u", "batch_norm", []), ("s", "weights", ["--p", "1/2"])]
)
def test_prints_the_report_and_writes_what_other_commands_take(
    dense: tuple[torch.nn.Module, Path],
    images: ImageDataset,
    kind: Any,
    method: Any,
    more: list[str],
    tmp_path: Path,
    capsys: Captured,
) -> None:
    model, weights = dense
    out = tmp_path / "out.safetensors"
    kept = weights.read_bytes()
    assert main(line(weights, out, "--bsconv", kind, "--method", method, *more)) == 0
    printed = capsys.readouterr().out
    seen = to_float(images.train_images[:8]).contiguous(memory_format=torch.channels_last)
    student, report = project_pretrained(model, seen, kind, 0.5, method=method, progress=False)
    assert printed.startswith(f"{report}\nmeasure it: bsconv evaluate --checkpoint {out}\n")
    assert printed.endswith(
        f"bsconv train --model cifar_resnet20 --bsconv {kind} {' '.join([*more, ''])}"
        f"--weights {out} --dataset synthetic\n"
    )
    torch.testing.assert_close(read_trained(out).state, dict(student.state_dict()))
    assert weights.read_bytes() == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == [weights.name, out.name]

    first = accuracy(capsys, "--checkpoint", out)
    named = ("--model", "cifar_resnet20", "--bsconv", kind, *more, "--weights", out)
    assert accuracy(capsys, *named) == first
    once = ("--dataset", "synthetic", "--epochs", 1)  # too short to look for its fastest steps
    with pytest.raises(RuntimeError, match="stop before the first step"):
        train_from(out, student, ["train", *map(str, (*named, *once))])


def macs(model: torch.nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    return counter.get_total_flops() // 2


@pytest.mark.slow
def test_a_budget_is_kept_and_the_file_says_its_plan(
    dense: tuple[torch.nn.Module, Path], tmp_path: Path, capsys: Captured, failure: Failure
) -> None:
    model, weights = dense
    out = tmp_path / "out.safetensors"
    assert main(line(weights, out, "--budget", "40%")) == 0
    printed = capsys.readouterr().out
    assert f"measure it: bsconv evaluate --checkpoint {out}\n" in printed
    teacher = f"--teacher {weights} --teacher-model cifar_resnet20"
    assert f"--weights {out} --dataset synthetic {teacher} --recipe finetune --epochs 3" in printed

    student = load_projected(model, out).eval()
    assert 0.3 < macs(student) / macs(model) <= 0.4
    plan = read_trained(out).plan
    assert plan
    for name, form in plan.items():
        kind = type(student.get_submodule(name)).__name__
        assert kind == f"BSConv{form.partition(':')[0].upper()}"
    assert f"{macs(student) / macs(model):.1%} of the MACs" in printed

    named = ("--model", "cifar_resnet20", "--weights", out)
    assert accuracy(capsys, "--checkpoint", out) == accuracy(capsys, *named)
    few = tmp_path / "few.safetensors"
    assert "budget needs at least" in failure(*line(weights, few, "--budget", "1%"))
    assert not few.exists()
    exported = tmp_path / "out.onnx"
    command = ["export", "--format", "onnx", "--checkpoint", out, "--out", exported]
    assert main([*map(str, command)]) == 0


@pytest.mark.slow
def test_a_curve_alone_writes_no_network(
    dense: tuple[torch.nn.Module, Path], tmp_path: Path, capsys: Captured
) -> None:
    arguments = line(dense[1], tmp_path, "--curve", tmp_path / "curve.svg", "--of", "parameters")
    at = arguments.index("--out")
    assert main(arguments[:at] + arguments[at + 2 :]) == 0
    assert "budgets of parameters" in capsys.readouterr().out
    assert "</svg>" in (tmp_path / "curve.svg").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {dense[1].name, "curve.svg"}


def train_from(out: Path, student: torch.nn.Module, arguments: list[str]) -> None:
    """Runs the command up to its optimiser, where the model must be ``student``."""
    from bsconv.experiments.training import _job

    def make_optimizer(model: torch.nn.Module, config: Any) -> None:
        torch.testing.assert_close(dict(model.state_dict()), dict(student.state_dict()))
        raise RuntimeError("stop before the first step")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_job, "make_optimizer", make_optimizer)
        main(arguments)


def test_the_methods_are_those_of_the_library() -> None:
    from bsconv.__main__ import Parser

    parser = Parser()
    project.add_arguments(parser)
    action = next(action for action in parser._actions if action.dest == "method")
    assert (tuple(action.choices or ()), action.default) == (get_args(Method), "outputs")


WRONG = {
    "--out out.pt": r"--out needs to be a \.safetensors file, got out\.pt",
    "--out no/out.safetensors": r"cannot write no/out\.safetensors: No such file",
    "--out dir.safetensors": r"cannot write dir\.safetensors: Is a directory",
    "--images 0": "--images: expected a whole number of at least 1, got '0'",
    "--bsconv x": "invalid choice: 'x'",
    "--bsconv s --p 3": "p needs a number >= 0 and <= 1",
    "--method best": "invalid choice: 'best'",
    "--pretrained cifar10": "not allowed with argument --weights",
    "--weights no.safetensors": "no.safetensors: No such file",
    "--dataset synthetic --image-size 0": "image_size needs a whole number",
    "--budget 25%": "argument --budget: not allowed with argument --bsconv",
    "--of macs": "--of goes with --budget or --curve alone",
    "--curve fig.txt": r"needs to end in \.png, \.pdf, \.svg, got fig\.txt",
}
WRONG_BUDGETS = {
    "": "project needs --bsconv or --budget, or --curve without --out",
    "--curve c.png": "project needs --bsconv or --budget, or --curve without --out",
    "--budget 0": "--budget: expected more than 0% and at most 100%, got '0'",
    "--budget 101%": "--budget: expected more than 0% and at most 100%, got '101%'",
    "--budget %": "--budget: expected a share",
    "--budget nan": "--budget: expected a share",
    "--budget 1/4 --of flops": "--of: invalid choice: 'flops'",
    "--budget 1/4 --p 1/2": "--p goes with --bsconv alone",
    "--budget 1/4 --method weights": "--method goes with --bsconv alone",
}


@pytest.mark.parametrize(
    ("usual", "more", "message"),
    [
        *(("--bsconv u", more, message) for more, message in WRONG.items()),
        *(("", more, message) for more, message in WRONG_BUDGETS.items()),
    ],
)
def test_bad_input_is_one_line(
    usual: str,
    more: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Failure,
) -> None:
    def load_dataset(*_: Any, **__: Any) -> None:
        raise AssertionError("images were loaded before the input was checked")

    monkeypatch.setattr(_inputs, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dir.safetensors").mkdir()
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    arguments = line(Path("w.safetensors"), Path("out.safetensors"), *usual.split())
    assert re.search(message, failure(*arguments, *more.split()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dir.safetensors", "w.safetensors"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("cifar_resnet20_bsconvu", "is a BSConv network already"),
        ("cifar_resnet56", r"dense\.safetensors do not fit cifar_resnet56: it lacks"),
        ("nothing", "nothing"),
    ],
)
def test_models_that_cannot_be_projected(
    model: str, message: str, dense: tuple[torch.nn.Module, Path], tmp_path: Path, failure: Failure
) -> None:
    out = tmp_path / "out.safetensors"
    arguments = line(dense[1], out, "--bsconv", "u")
    arguments[1] = model
    assert re.search(message, failure(*arguments))
    assert not out.exists()
