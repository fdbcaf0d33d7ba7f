"""The command line: what it prints, and one clear line for whatever is wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from bsconv import __version__
from bsconv.__main__ import COMMANDS, main
from bsconv.experiments import training
from bsconv.experiments.config import TrainConfig
from bsconv.experiments.training import _inputs
from bsconv.pytorch import BSConvS_Replacer, BSConvU_Replacer, ModelProfiler, get_model, list_models

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="session")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of seconds."""
    out = tmp_path_factory.mktemp("runs") / "trained"
    settings = "--image-size 8 --epochs 2 --batch-size 8 --device cpu"
    line = ["train", "--model", "cifar_resnet20_bsconvu", "--dataset", str(images)]
    assert main([*line, *settings.split(), "--out", str(out)]) == 0
    return out


# --- good input -----------------------------------------------------------------------------------


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """What is called to train; nothing is trained."""
    monkeypatch.setattr(training, "train", Mock())
    return training.train  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("text", "value"), [("1/4", 0.25), ("0.25", 0.25), ("1", 1), ("1/3", 1 / 3)]
)
def test_p_is_a_fraction_or_a_number(train: Mock, text: str, value: float) -> None:
    assert main(["train", "--model", "cifar_resnet20", "--bsconv", "s", "--p", text]) == 0
    assert train.call_args[0][0].p == value


def test_train_passes_every_option_on(train: Mock) -> None:
    options = {
        "model": "m", "bsconv": "s", "p": 0.5, "dataset": "cifar100", "data": "x", "out": "o",
        "recipe": "published", "batch_size": 4, "learning_rate": 0.2, "momentum": 0.8, "alpha": 0.3,
        "weight_decay": 0.1, "milestones": (1, 2), "crop_padding": 2, "cutout": 1, "seed": 7,
        "train_limit": 5, "test_limit": 6, "image_size": 9, "device": "cpu", "epochs": 3,
    }  # fmt: skip
    line = ["train", "--with-bn", "--no-flip"]
    for name, value in options.items():
        values = value if isinstance(value, tuple) else (value,)
        line += [f"--{name.replace('_', '-')}", *map(str, values)]
    assert main(line) == 0
    train.assert_called_with(TrainConfig(**options, with_bn=True, flip=False), resume=False)
    assert main(["train", "--model", "cifar_resnet56"]) == 0
    train.assert_called_with(TrainConfig(model="cifar_resnet56"), resume=False)


def test_resume_takes_its_settings_from_the_folder(trained: Path, said: Any, failure) -> None:
    line = ("train", "--resume", "--out", trained)
    assert "is finished already" in said(*line).out
    assert "recipe='published', not recipe='fast'; resume" in failure(*line, "--recipe", "fast")
    assert "holds a run with p=0.25, not p=0.5; resume" in failure(*line, "--p", "1/2")


def test_evaluate_repeats_what_train_has_measured(trained: Path, said: Any) -> None:
    rows = (trained / "metrics.jsonl").read_text().splitlines()
    top1 = f"test top-1 {json.loads(rows[-1])['test_top1']:.2f} % of 12 images"
    for source in (trained, trained / "model.safetensors", trained / "checkpoint.pt"):
        assert top1 in said("evaluate", "--checkpoint", source, "--device", "cpu").out
    assert "of 4 images" in said("evaluate", "--checkpoint", trained, "--test-limit", "4").out


def test_evaluate_finds_the_archives_of_the_run(trained: Path, monkeypatch, tmp_path) -> None:
    """--data is kept in the config.json of a folder, not in the weights that may be passed on."""
    load_dataset = Mock(side_effect=_inputs.load_dataset)
    monkeypatch.setattr(_inputs, "load_dataset", load_dataset)
    run = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "data": "elsewhere"}))
    main(["evaluate", "--checkpoint", str(run)])
    main(["evaluate", "--checkpoint", str(run), "--data", "here"])
    main(["evaluate", "--checkpoint", str(run / "model.safetensors")])
    assert [call[0][1] for call in load_dataset.call_args_list] == ["elsewhere", "here", None]


def test_models_lists_by_pattern(said: Any) -> None:
    assert said("models", "cifar_resnet20*").out.splitlines() == list_models("cifar_resnet20*")
    assert said("models").out.splitlines() == list_models()


def test_plan_prints_the_table_of_the_replacer(said: Any) -> None:
    model, line = get_model("cifar_resnet20", 10), ("plan", "cifar_resnet20")
    assert said(*line).out == f"{BSConvU_Replacer().plan(model)}\n"
    kept = "backbone.stage1.unit1.conv1.conv"
    options = ("--bsconv", "s", "--p", "1/8", "--with-bn", "--exclude", kept)
    plan = BSConvS_Replacer(p=1 / 8, with_bn=True, exclude=[kept]).plan(model)
    assert said(*line, *options).out == f"{plan}\n"


@pytest.mark.parametrize(
    ("line", "summary"),
    [
        ("cifar_resnet20 --num-classes 10", "1x3x32x32: 272,480 parameters, 41,413,258 F"),
        ("cifar_mobilenetv1_w1d4 --input-size 64", "on 1x3x64x64: "),
        ("mobilenetv1_w1d4 --input-size 3x160x128", "on 1x3x160x128: "),
        ("torchvision:mobilenet_v2", "on 1x3x224x224: 3,504,872 parameters.*as free: ReLU6$"),
        ("pytorchcv:resnet20_cifar10 --num-classes 10", "on 1x3x32x32: 272,474 parameters"),
        ("torchvision:regnet_y_400mf", "4,344,144 parameters"),  # cannot be built on meta
    ],
)
def test_profile_prints_the_table_of_the_profiler(line: str, summary: str, said: Any) -> None:
    printed = said("profile", *line.split()).out.splitlines()
    assert printed[0].split()[:4] == ["layer", "type", "calls", "parameters"]
    assert re.search(summary, printed[-1])


def test_profile_writes_what_it_prints(tmp_path: Path, said: Any) -> None:
    file = tmp_path / "rows.csv"
    profiler = ModelProfiler(get_model("cifar_resnet20_bsconvu", 7), (1, 3, 32, 32))
    line = ("profile", "cifar_resnet20_bsconvu", "--num-classes", "7", "--csv", file)
    assert said(*line).out == f"{profiler}\n"
    written = file.read_text()
    profiler.to_csv(file)
    assert file.read_text() == written


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_names_everything(command: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*command.split(), "--help"])
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: bsconv {command}")
    assert command or all(name in printed for name in COMMANDS)


def test_version(capsys: Captured) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"bsconv {__version__}\n"


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("cannot write x: the disk is full"), "cannot write x: the disk is full"),
        (PermissionError(13, "Permission denied", "x/.lock"), "x/.lock: Permission denied"),
        (FloatingPointError("the training loss became nan in epoch 2"), "became nan in epoch 2"),
        (ValueError("two\nlines"), "two lines"),
        (ModuleNotFoundError(name="numpy"), "the package numpy: pip install 'bsconv[lab]'"),
        (MemoryError(), "the memory does not hold this"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "does not hold"),
        (torch.OutOfMemoryError("CUDA out of memory"), "auto is out of memory, try a smaller"),
    ],
)
def test_errors_of_a_run_are_one_line(train, failure, error: Exception, message: str) -> None:
    train.side_effect = error
    assert message in failure("train", "--model", "cifar_resnet20")


def test_what_nobody_expected_keeps_its_traceback(train: Mock) -> None:
    train.side_effect = ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        main(["train", "--model", "cifar_resnet20"])


# --- endings --------------------------------------------------------------------------------------


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
