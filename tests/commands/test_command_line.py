"""The command line: what it prints, and one clear line for whatever is wrong."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bsconv import __version__
from bsconv.__main__ import COMMANDS, main
from bsconv.experiments import training
from bsconv.experiments.config import TrainConfig
from bsconv.experiments.training import _inputs, _job, _train
from bsconv.pytorch import list_models

Captured = pytest.CaptureFixture[str]
Failure = Callable[..., str]


def small(images: Path, *more: object) -> list[str]:
    """Arguments of a training of seconds."""
    arguments = ("train", "--model", "cifar_resnet20_bsconvu", "--dataset", images, "--image-size")
    arguments += (8, "--epochs", 2, "--batch-size", 8, "--learning-rate", 0.01, "--device", "cpu")
    return [str(argument) for argument in (*arguments, *more)]


@pytest.fixture(scope="session")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "trained"
    assert main(small(images, "--out", out)) == 0
    return out


# --- good input -----------------------------------------------------------------------------------


def test_train_prints_a_line_per_epoch_and_writes_the_run(
    images: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "run"
    assert main(small(images, "--bsconv", "s", "--model", "cifar_resnet20", "--out", out)) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("training cifar_resnet20 (")
    assert printed[1].startswith("steps in float32, eager, 0 of 19 BSConv layers merged, ")
    assert [line.split(":")[0] for line in printed[2:]] == ["epoch 1", "epoch 2"]
    config = json.loads((out / "config.json").read_text())
    assert (config["bsconv"], config["p"], config["with_bn"]) == ("s", 0.25, False)
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainConfig, dict[str, Any]]]:
    """What train was called with; nothing is trained."""
    calls: list[tuple[TrainConfig, dict[str, Any]]] = []
    monkeypatch.setattr(training, "train", lambda config, **more: calls.append((config, more)))
    return calls


@pytest.mark.parametrize(
    ("text", "value"), [("1/4", 0.25), ("0.25", 0.25), ("1", 1), ("1/3", 1 / 3)]
)
def test_p_is_a_fraction_or_a_number(seen: list[Any], text: str, value: float) -> None:
    assert main(["train", "--model", "cifar_resnet20", "--bsconv", "s", "--p", text]) == 0
    assert seen[0][0].p == value


def test_train_passes_every_option_on(seen: list[Any]) -> None:
    options = {
        "model": "m", "bsconv": "s", "p": 0.5, "dataset": "d", "data": "x", "out": "o", "epochs": 3,
        "recipe": "published", "batch_size": 4, "learning_rate": 0.2, "momentum": 0.8, "alpha": 0.3,
        "weight_decay": 0.1, "milestones": (1, 2), "crop_padding": 2, "cutout": 1, "seed": 7,
        "train_limit": 5, "test_limit": 6, "image_size": 9, "device": "cpu",
    }  # fmt: skip
    line = ["train", "--with-bn", "--no-flip"]
    for name, value in options.items():
        values = value if isinstance(value, tuple) else (value,)
        line += [f"--{name.replace('_', '-')}", *map(str, values)]
    assert main(line) == 0
    assert main(["train", "--model", "cifar_resnet56"]) == 0
    assert seen == [
        (TrainConfig(**options, with_bn=True, flip=False), {"resume": False}),
        (TrainConfig(model="cifar_resnet56"), {"resume": False}),
    ]


def test_resume_takes_its_settings_from_the_folder(trained: Path, capsys: Captured) -> None:
    assert main(["train", "--resume", "--out", str(trained)]) == 0
    assert "is finished already" in capsys.readouterr().out


def test_evaluate_repeats_what_train_has_measured(
    trained: Path, tmp_path: Path, capsys: Captured
) -> None:
    rows = (trained / "metrics.jsonl").read_text().splitlines()
    top1 = json.loads(rows[-1])["test_top1"]
    for source in (trained, trained / "model.safetensors", trained / "checkpoint.pt"):
        assert main(["evaluate", "--checkpoint", str(source), "--device", "cpu"]) == 0
        printed = capsys.readouterr().out
        assert f"test top-1 {top1:.2f} % of 12 images" in printed
    assert main(["evaluate", "--checkpoint", str(trained), "--test-limit", "4"]) == 0
    assert "of 4 images" in capsys.readouterr().out


def test_evaluate_finds_the_archives_of_the_run(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--data is kept in the config.json of a folder, not in the weights that may be passed on."""
    seen = []
    plain = _inputs.load_dataset

    def load_dataset(name: str, root: str | None, **more: Any) -> Any:
        seen.append(root)
        return plain(name, root, **more)

    monkeypatch.setattr(_inputs, "load_dataset", load_dataset)
    config = trained / "config.json"
    before = config.read_text()
    try:
        config.write_text(json.dumps({**json.loads(before), "data": "elsewhere"}))
        main(["evaluate", "--checkpoint", str(trained)])
        main(["evaluate", "--checkpoint", str(trained), "--data", "here"])
        main(["evaluate", "--checkpoint", str(trained / "model.safetensors")])
    finally:
        config.write_text(before)
    assert seen == ["elsewhere", "here", None]


def test_models_lists_by_pattern(capsys: Captured) -> None:
    assert main(["models", "cifar_resnet20*"]) == 0
    assert capsys.readouterr().out.splitlines() == list_models("cifar_resnet20*")
    assert main(["models"]) == 0
    assert capsys.readouterr().out.splitlines() == list_models()


def test_plan_prints_the_table_of_the_replacer(capsys: Captured) -> None:
    from bsconv.experiments.model_sources import build_model
    from bsconv.pytorch import BSConvS_Replacer, BSConvU_Replacer

    model = build_model("cifar_resnet20", 10)
    line = ["plan", "cifar_resnet20", "--num-classes", "10"]
    assert main(line) == 0
    assert capsys.readouterr().out == f"{BSConvU_Replacer().plan(model)}\n"
    kept = "backbone.stage1.unit1.conv1.conv"
    assert main([*line, "--bsconv", "s", "--p", "1/8", "--with-bn", "--exclude", kept]) == 0
    plan = BSConvS_Replacer(p=1 / 8, with_bn=True, exclude=[kept]).plan(model)
    assert capsys.readouterr().out == f"{plan}\n"


@pytest.mark.parametrize(
    ("line", "summary"),
    [
        (["cifar_resnet20", "--num-classes", "10"], "1x3x32x32: 272,480 parameters, 41,413,258 F"),
        (["cifar_mobilenetv1_w1d4", "--input-size", "64"], "on 1x3x64x64: "),
        (["mobilenetv1_w1d4", "--input-size", "3x160x128"], "on 1x3x160x128: "),
        (["torchvision:mobilenet_v2"], "on 1x3x224x224: 3,504,872 parameters.*as free: ReLU6$"),
        (["pytorchcv:resnet20_cifar10", "--num-classes", "10"], "on 1x3x32x32: 272,474 parameters"),
        (["torchvision:regnet_y_400mf"], "4,344,144 parameters"),  # cannot be built on meta
    ],
)
def test_profile_prints_the_table_of_the_profiler(
    line: list[str], summary: str, capsys: Captured
) -> None:
    assert main(["profile", *line]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:4] == ["layer", "type", "calls", "parameters"]
    assert re.search(summary, printed[-1])


def test_profile_writes_what_it_prints(tmp_path: Path, capsys: Captured) -> None:
    from bsconv.pytorch import ModelProfiler, get_model

    file = tmp_path / "rows.csv"
    line = ["profile", "cifar_resnet20_bsconvu", "--num-classes", "7", "--csv", str(file)]
    assert main(line) == 0
    profiler = ModelProfiler(get_model("cifar_resnet20_bsconvu", 7), (1, 3, 32, 32))
    assert capsys.readouterr().out == f"{profiler}\n"
    written = file.read_text()
    profiler.to_csv(file)
    assert file.read_text() == written


@pytest.mark.parametrize("command", [[]] + [[name] for name in COMMANDS])
def test_help_names_everything(command: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "usage: bsconv" in printed
    if not command:
        assert all(name in printed for name in COMMANDS)


def test_version(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"bsconv {__version__}\n"


# --- bad input ------------------------------------------------------------------------------------

WRONG = {
    "trian": "there is no command 'trian', did you mean train",
    "train": "--model is missing: an architecture of `bsconv models`; torchvision:NAME",
    "train --nonsense": "unrecognized arguments: --nonsense",
    "train --model cifar_resnet21": "cifar_resnet21",
    "train --model resnet_18": "did you mean",
    "train --model torchvision:resnet19": "did you mean torchvision:resnet1",
    "train --model cifar_resnet20_bsconvu --bsconv u": "is a BSConv network al",
    "train --model cifar_resnet20 --dataset cifar11": "did you mean cifar10",
    "train --model cifar_resnet20 --dataset ./no": "no does not exist",
    "train --model cifar_resnet20 --epochs -1": "epochs needs a whole number",
    "train --model cifar_resnet20 --epochs x": "invalid int value: 'x'",
    "train --model cifar_resnet20 --batch-size 0": "batch_size needs a whole",
    "train --model cifar_resnet20 --device gpu": "auto .*cpu.*, got 'gpu'",
    "train --model cifar_resnet20 --bsconv x": "invalid choice: 'x'",
    "train --model cifar_resnet20 --p 1/0": "expected a share as 1/4 or 0.25",
    "train --model cifar_resnet20 --bsconv s --p 3/2": "p needs a number >= 0 and <= 1",
    "train --model cifar_resnet20 --recipe slow": "invalid choice: 'slow'",
    "train --model cifar_resnet20 --learning-rate -1": "learning_rate needs a number > 0",
    "train --model cifar_resnet20 --p 1/2": "--p goes with --bsconv s alone, got 0.5 with",
    "train --model cifar_resnet20 --bsconv u --p 1": "--p goes with --bsconv s alone",
    "train --model cifar_resnet20 --image-size 100000": "a whole number >= 1 and <= 4096",
    "train --model cifar_resnet20 --mean 0.5 0.5": "argument --mean: expected 3 arguments",
    "train --model cifar_resnet20 --mean 0.5 0.5 0.5": "mean needs std with it",
    "plan cifar_resnet20 --p 1/2": "--p goes with --bsconv s alone",
    "plan cifar_resnet20 --num-classes 99999999999": "num_classes needs at most 10,000,000",
    "train --resume": "--resume needs --out",
    "train --resume --out none": "none holds no run to resume; --model starts one",
    "train --model torchvision:alexnet --train-limit 10 --dataset synthetic": (
        "torchvision:alexnet cannot take images of 2 x 3 x 32 x 32 .*--image-size 224"
    ),
    "evaluate": "one of the arguments --checkpoint --model is required",
    "evaluate --checkpoint none": "none: No such file or directory",
    "evaluate --checkpoint .": "neither model.safetensors nor checkpoint.pt",
    "evaluate --checkpoint . --model m": "not allowed with argument",
    "evaluate --checkpoint . --pretrained x": "--pretrained goes with --model",
    "evaluate --checkpoint . --bsconv u": "--bsconv goes with --model",
    "evaluate --model cifar_resnet20": "--pretrained or --weights is missing",
    "evaluate --checkpoint . --weights x": "--weights goes with --model",
    "evaluate --model cifar_resnet20 --weights no.pt": "no.pt: No such file",
    "train --model cifar_resnet20 --weights no.pt": "no.pt: No such file",
    "train --model cifar_resnet20 --weights ''": "weights needs a file of w",
    "evaluate --model cifar_resnet20 --pretrained x --dataset synthetic": "pretrained='x'",
    "models nothing*": r"no architecture matches 'nothing\*'",
    "plan": "the following arguments are required: MODEL",
    "plan nothing": "nothing",
    "plan cifar_resnet20 --num-classes 0": "--num-classes: expected a whole number of",
    "plan cifar_resnet20 --exclude x": "exclude names no layer of this model",
    "plan cifar_resnet20 --bsconv s --p 2": "0 <= p <= 1",
    "profile": "the following arguments are required: MODEL",
    "profile cifar_resnet21": "did you mean cifar_resnet20",
    "profile cifar_resnet20 --input-size 3x32": r"input_size=\(1, 3, 32\)",
    "profile cifar_resnet20 --input-size 1x32x32": r"input_size=\(1, 1, 32, 32\)",
    "profile torchvision:alexnet --input-size 32": "what AlexNet takes, got input",
    "profile cifar_resnet20 --csv no/x.csv": "cannot write no/x.csv: No such file",
    "profile cifar_resnet20 --csv .": r"cannot write \.: Is a directory",
    "data cifar11": "did you mean cifar10",
    "spectra": "the following arguments are required: MODEL",
    "spectra none.safetensors": "none.safetensors: No such file or directory",
    "spectra cifar_resnet20 --weights none.pth": "none.pth: No such file or directory",
    "spectra cifar_resnet20 --weights .": "neither model.safetensors nor checkpoint.pt",
    "spectra none.pth --weights other.pth": "--weights goes with a model by its name, none.pt",
    "spectra cifar_resnet56 --weights DEFAULT": "pretrained='cifar10'.*it has none",
    "spectra torchvision:resnet19 --weights DEFAULT": "did you mean torchvision:resnet1",
    "spectra torchvision:vgg19 --weights DEFAULT": "BSCONV_OFFLINE is set, .*--weights FILE",
}


@pytest.mark.parametrize("line", WRONG)
def test_bad_input_is_one_line(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Failure
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BSCONV_OFFLINE", "1")
    printed = failure(*shlex.split(line))
    assert re.search(WRONG[line], printed), printed
    assert list(tmp_path.iterdir()) == []  # nothing is written for it


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError(name="numpy"), "needs the package numpy: pip install 'bsconv[lab]"),
        (MemoryError(), "the memory does not hold this"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "does not hold"),
    ],
)
def test_what_an_installation_or_a_machine_lacks(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, failure: Failure
) -> None:
    def run(_: Any) -> int:
        raise error

    monkeypatch.setattr(COMMANDS["models"], "run", run)
    assert message in failure("models")


def test_a_missing_or_broken_archive_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Failure
) -> None:
    monkeypatch.setenv("BSCONV_OFFLINE", "1")
    line = ("train", "--model", "cifar_resnet20", "--data", tmp_path)
    assert str(tmp_path) in failure(*line)
    # the model is checked first: no data is fetched for one that does not exist
    unknown = failure("train", "--model", "cifar_resnet20x", "--data", tmp_path)
    assert "cifar_resnet20x" in unknown
    archive = tmp_path / "cifar10.npz"
    archive.write_bytes(b"nonsense")
    assert str(archive) in failure(*line)
    assert archive.read_bytes() == b"nonsense"


def test_broken_checkpoint_is_one_line(images: Path, tmp_path: Path, failure: Failure) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"nonsense")
    line = small(images, "--out", tmp_path)
    assert "already holds a run (checkpoint.pt)" in failure(*line)
    assert f"{path} is damaged" in failure(*line, "--resume")
    assert f"{path} is damaged" in failure("evaluate", "--checkpoint", path)
    assert path.read_bytes() == b"nonsense"


def test_finished_run_is_not_overwritten(images: Path, trained: Path, failure: Failure) -> None:
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    assert "already holds a run" in failure(*small(images, "--out", trained))
    message = failure("train", "--resume", "--out", trained, "--seed", "1")
    assert "holds a run with seed=0, not seed=1" in message
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


def test_evaluate_on_other_classes(trained: Path, failure: Failure) -> None:
    line = ["evaluate", "--checkpoint", trained, "--dataset", "synthetic", "--image-size", "8"]
    assert "knows 3 classes, synthetic has 10" in failure(*line)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("cannot write x: the disk is full"), "cannot write x: the disk is full"),
        (PermissionError(13, "Permission denied", "x/.lock"), "x/.lock: Permission denied"),
        (FloatingPointError("the training loss became nan in epoch 2"), "became nan in epoch 2"),
        (ValueError("two\nlines"), "two lines"),
        (torch.OutOfMemoryError("CUDA out of memory"), "auto is out of memory, try a smaller"),
    ],
)
def test_errors_of_a_run_are_one_line(
    monkeypatch: pytest.MonkeyPatch, failure: Failure, error: Exception, message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(training, "train", fail)
    assert message in failure("train", "--model", "cifar_resnet20")


def test_what_nobody_expected_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "train", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["train", "--model", "cifar_resnet20"])


# --- endings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True])
def test_ctrl_c_says_how_to_go_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, begun: bool
) -> None:
    def interrupt(*_: object, **__: object) -> float:
        raise KeyboardInterrupt

    place, name = (_train, "evaluate") if begun else (_job, "find_dataset")
    monkeypatch.setattr(place, name, interrupt)
    out = tmp_path / "a run"
    assert main(small(images, "--out", out)) == 130
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    if begun:
        assert line.endswith(f"interrupted; go on with: bsconv train --out '{out}' --resume\n")
        monkeypatch.undo()
        assert main(["train", "--out", str(out), "--resume"]) == 0
    else:
        assert "nothing was written yet" in line
        assert not out.exists()


@pytest.mark.slow
def test_help_is_quick_and_pulls_in_nothing_heavy() -> None:
    script = (
        "import sys\nfrom bsconv.__main__ import make_parser\nmake_parser().format_help()\n"
        "print({'torch', 'numpy', 'torchvision', 'pytorchcv', 'tqdm'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.stdout == "set()\n", ended


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="pipes end otherwise there")
def test_broken_pipe_is_silent() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "bsconv", "models"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=120)
    os.close(writer)
    assert (ended.stderr, ended.returncode) == (b"", 0)
