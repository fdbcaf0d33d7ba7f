"""``make gpu`` as a plan: its order, its pieces and what it runs, on a device that is not there."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.__main__ import make_parser
from bsconv.__main__ import make_parser as bsconv_parser


@pytest.fixture(autouse=True)
def pretended_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "machine_class", lambda: "a GPU")
    monkeypatch.setattr(gpu, "current_commit", lambda: "abc")


def piece(out: Path, ends_at: str = "", fails: str = "") -> list[str]:
    """The logs that one call of ``make gpu`` writes, if time is over in the step ``ends_at``."""
    ran = []

    def run(commands: list[list[str]], log: Path, seconds: float) -> bool:
        assert 0 < seconds <= 600
        ran.append(log.stem)
        if log.stem == ends_at:
            raise subprocess.TimeoutExpired(commands[0], seconds)
        return log.stem != fails

    assert gpu.main(["--out", str(out)], run) == (1 if fails in ran else 0)
    return ran


def test_two_pieces_do_every_step_once_and_what_failed_again(tmp_path, capsys):
    names = [step.name for step in gpu.steps(tmp_path, "cuda")]
    first = piece(tmp_path, ends_at="train-cifar_resnet20", fails="tests")
    assert list(dict.fromkeys(first)) == names[: names.index("train-cifar_resnet20") + 1]
    assert "go on with: make gpu" in capsys.readouterr().out
    second = piece(tmp_path)
    assert list(dict.fromkeys(second)) == [*names[names.index("train-cifar_resnet20") :], "tests"]
    assert piece(tmp_path) == []
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert set(progress["steps"]) == set(names)
    assert all(step["passed"] for step in progress["steps"].values())
    assert progress["machine"] == "a GPU"


def test_a_step_that_takes_all_the_time_comes_last(tmp_path):
    assert piece(tmp_path, ends_at="tests") == ["tests"]
    assert piece(tmp_path)[-1] == "tests"


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_every_command_of_the_plan_is_one(device, tmp_path):
    (tmp_path / "runs" / "cifar_resnet20-1").mkdir(parents=True)
    (tmp_path / "runs" / "cifar_resnet20-1" / "checkpoint.pt").touch()
    resumed = 0
    for step in gpu.steps(tmp_path, device):
        for _, flag, *command in [*step.commands, *filter(None, [step.then])]:
            if command[0] == "benchmarks":
                make_parser().parse_args(command[1:])
            elif command[0] == "bsconv":
                resumed += bsconv_parser().parse_args(command[1:]).resume
            else:
                paths = [word for word in (flag, *command) if word.endswith((".py", ".ipynb"))]
                assert paths
                assert all((gpu.ROOT / path).is_file() for path in paths)
    assert resumed == 1


@pytest.mark.slow
def test_commands_run_side_by_side_and_none_outlives_its_time(tmp_path):
    log = tmp_path / "log"
    say, fail, sleep = ["echo", "said"], ["false"], ["sleep", "60"]
    assert gpu.run_commands([say, say], log, 10)
    assert log.read_text().split() == ["said", "said"]
    assert not gpu.run_commands([say, fail], log, 10)
    with pytest.raises(subprocess.TimeoutExpired):
        gpu.run_commands([say, sleep], log, 0.1)


def test_bad_input(tmp_path, monkeypatch, capsys):
    assert gpu.main(["--out", str(tmp_path), "--steps", "x"]) == 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("benchmarks.gpu: no step x; there are tests, ")
    assert second == "benchmarks.gpu: there is no GPU here; --device cpu tries it small"
