"""A run that is killed and resumed ends as if nothing had happened, and harms no other run."""

import contextlib
import dataclasses
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from bsconv.experiments.data import ImageDataset, load_dataset
from bsconv.experiments.files.checkpoints import read_checkpoint, write_checkpoint
from bsconv.experiments.training import History, TrainConfig, _inputs, train
from bsconv.experiments.training import _run_folder as _runs
from bsconv.experiments.training import _steps as execution
from bsconv.experiments.training import _train as training
from bsconv.pytorch import BSConvU_Replacer
from bsconv.pytorch import _layer_plans as _execution

FILES = ["checkpoint.pt", "config.json", "metrics.jsonl", "model.safetensors"]


def net(classes: int) -> nn.Module:
    """Has all that has a state: weights, BatchNorm statistics, dropout's use of the global one."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(32, classes),
    )


@pytest.fixture(scope="session")
def images() -> ImageDataset:
    return load_dataset("synthetic").limited(train=40, test=20)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, images: ImageDataset) -> None:
    monkeypatch.setattr(_inputs, "build_model", lambda name, classes, **_: net(classes))
    monkeypatch.setattr(_inputs, "load_dataset", lambda *_, **__: images)


def config(out: Path | None, **settings: Any) -> TrainConfig:
    defaults: dict[str, Any] = {"epochs": 4, "batch_size": 16, "recipe": "fast", "device": "cpu"}
    return TrainConfig(**{**defaults, "out": out, **settings})


def run(out: Path | None, resume: bool = False, **settings: Any) -> History:
    return train(config(out, **settings), resume=resume, progress=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def metrics(folder: Path) -> list[dict[str, Any]]:
    """All but the time that the epochs took."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [{name: row[name] for name in row if name != "seconds"} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert metrics(one) == metrics(other)
    first, second = (read_checkpoint(folder / "checkpoint.pt") for folder in (one, other))
    for state in (first, second):
        state["config"].pop("out")
        for row in state["history"]:
            row.pop("seconds")
    assert_equal(first, second)


def assert_equal(first: Any, second: Any) -> None:
    assert type(first) is type(second)
    if isinstance(first, Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, list):
        for a, b in zip(first, second, strict=True):
            assert_equal(a, b)
    else:
        assert first == second


class Stop(Exception):
    """In place of a kill, inside one process."""


def stop_in_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """The run breaks off before the ``epoch``-th evaluation."""
    calls = iter(range(1, 100))
    plain = training.evaluate

    def evaluate(*arguments: Any, **settings: Any) -> float:
        if next(calls) == epoch:
            raise Stop
        return plain(*arguments, **settings)

    monkeypatch.setattr(training, "evaluate", evaluate)


# --- the files ------------------------------------------------------------------------------------


def test_out_holds_the_run(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    history = run(out)
    assert sorted(name for name in contents(out) if name != ".lock") == FILES
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [list(row) for row in rows] == [
        ["epoch", "train_loss", "test_top1", "learning_rate", "seconds"]
    ] * 4
    assert rows == history.to_dicts()
    saved = json.loads((out / "config.json").read_text())
    assert (saved["learning_rate"], saved["epochs"], saved["device"]) == (0.3, 4, "cpu")


def test_writing_changes_no_result(tmp_path: Path) -> None:
    kept, not_kept = run(tmp_path / "run"), run(None)
    assert kept.model is not None
    assert not_kept.model is not None
    torch.testing.assert_close(kept.model.state_dict(), not_kept.model.state_dict(), rtol=0, atol=0)


# --- going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["published", "fast"])
def test_resumed_after_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    run(straight, recipe=recipe)
    for epoch in (1, 2, 2, 2):  # counted from where each part starts: in epochs 1, 2, 3, 4
        with monkeypatch.context() as patch:
            stop_in_epoch(patch, epoch)
            with pytest.raises(Stop):
                run(broken, resume=True, recipe=recipe)
        torch.rand(7)  # what happens in between is of no matter
    history = run(broken, resume=True, recipe=recipe)
    assert_same_run(straight, broken)
    assert [row.epoch for row in history] == [1, 2, 3, 4]
    assert history.model is not None


def test_a_resumed_run_keeps_the_plans_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fastest_is(fastest: str) -> None:
        monkeypatch.setattr(_execution, "_fastest", {})
        monkeypatch.setattr(_execution, "_seconds", lambda plan, *_: float(plan != fastest))

    def with_blueprints(classes: int) -> nn.Module:
        return BSConvU_Replacer().apply(net(classes))

    monkeypatch.setattr(_inputs, "build_model", lambda name, classes, **_: with_blueprints(classes))
    monkeypatch.setattr(execution, "WORTH_MEASURING", 0)
    fastest_is("merged")
    run(tmp_path / "whole", plan="auto", precision="float32")
    with pytest.raises(KeyboardInterrupt):
        train(
            config(tmp_path / "broken", plan="auto", precision="float32"),
            progress=False,
            after_epoch=interrupt,
        )
    fastest_is("factored")
    run(tmp_path / "broken", plan="auto", precision="float32", resume=True)
    kept = read_checkpoint(tmp_path / "broken" / "checkpoint.pt")["execution"]
    assert kept["plans"] == {"0": "merged"}
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("plans", [{"0": "merged"}, {"nowhere": "merged"}])
def test_plans_that_do_not_fit_are_refused(tmp_path: Path, plans: dict[str, str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "run"), progress=False, after_epoch=interrupt)
    path = tmp_path / "run" / "checkpoint.pt"
    state = {name: value for name, value in read_checkpoint(path).items() if name != "format"}
    execution = {**state["execution"], "plans": plans}
    write_checkpoint(path, {**state, "execution": execution})
    before = contents(tmp_path / "run")
    with pytest.raises(ValueError, match="plans do not fit the model"):
        run(tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("kept", ["fast", {"precision": "bfloat16"}, {"mood": "fast"}])
def test_an_execution_that_is_none_is_refused(tmp_path: Path, kept: object) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "run"), progress=False, after_epoch=interrupt)
    path = tmp_path / "run" / "checkpoint.pt"
    state = {name: value for name, value in read_checkpoint(path).items() if name != "format"}
    write_checkpoint(path, {**state, "execution": kept})
    with pytest.raises(ValueError, match="does not say how its steps are computed"):
        run(tmp_path / "run", resume=True)


def test_resume_of_nothing_is_a_start(tmp_path: Path) -> None:
    run(tmp_path / "straight")
    run(tmp_path / "new", resume=True)
    (tmp_path / "empty").mkdir()
    run(tmp_path / "empty", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "new")
    assert_same_run(tmp_path / "straight", tmp_path / "empty")


def test_metrics_are_written_again_from_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "straight")
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_in_epoch(patch, 4)
        with pytest.raises(Stop):
            run(out)
    whole = (out / "metrics.jsonl").read_text()
    (out / "metrics.jsonl").write_text(whole + whole + '{"epoch": 4, "train_')
    run(out, resume=True)
    assert_same_run(tmp_path / "straight", out)


def test_finished_run_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    first = run(out)
    before = contents(out)
    again = train(config(out), resume=True)
    assert "is finished already, nothing to do" in capsys.readouterr().out
    assert contents(out) == before
    assert again == first
    assert again.model is not None
    assert first.model is not None
    torch.testing.assert_close(again.model.state_dict(), first.model.state_dict(), rtol=0, atol=0)


def test_killed_before_the_model_was_written(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(out)
    before = contents(out)
    (out / "model.safetensors").unlink()
    run(out, resume=True)
    assert contents(out) == before


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("present", FILES)
def test_folder_that_holds_a_run_is_refused(tmp_path: Path, present: str) -> None:
    (tmp_path / present).write_bytes(b"precious")
    with pytest.raises(ValueError, match=rf"already holds a run \({present}\); resume it with"):
        run(tmp_path)
    assert (tmp_path / present).read_bytes() == b"precious"


@pytest.mark.parametrize(
    "other",
    [
        {"model": "cifar_resnet56"},
        {"dataset": "cifar10"},
        {"bsconv": "u"},
        {"epochs": 5},
        {"batch_size": 8},
        {"seed": 1},
        {"recipe": "published"},
        {"learning_rate": 0.2},
        {"alpha": 0.2},
        {"cutout": 8},
        {"flip": False},
        {"train_limit": 20},
        {"image_size": 16},
    ],
)
@pytest.mark.parametrize("epochs_done", [0, 1])
def test_resume_with_other_settings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any], epochs_done: int
) -> None:
    stop_in_epoch(monkeypatch, epochs_done + 1)
    settings = {"dataset": "synthetic"}
    with pytest.raises(Stop):
        run(tmp_path, **settings)
    before = contents(tmp_path)
    name, value = next(iter(other.items()))
    with pytest.raises(ValueError, match=f"holds a run with {name}=.*, not {name}={value!r}"):
        run(tmp_path, resume=True, **{**settings, **other})
    assert contents(tmp_path) == before


@pytest.mark.parametrize("part", ["train_images", "train_labels", "test_images", "test_labels"])
def test_resume_with_other_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: ImageDataset, part: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path), progress=False, after_epoch=interrupt)
    before = contents(tmp_path)
    tensor = getattr(images, part).clone()
    tensor[3] = tensor[2]
    other = dataclasses.replace(images, **{part: tensor})
    monkeypatch.setattr(_inputs, "load_dataset", lambda *_, **__: other)
    message = f"synthetic has changed since the run in {tmp_path} began; .*--weights {tmp_path}"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_checkpoints_of_earlier_versions_know_no_data(tmp_path: Path) -> None:
    run(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "run"), progress=False, after_epoch=interrupt)
    path = tmp_path / "run" / "checkpoint.pt"
    state = read_checkpoint(path)
    del state["data"]
    write_checkpoint(path, state)
    run(tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def test_resume_without_a_folder() -> None:
    with pytest.raises(ValueError, match="resume needs the out folder"):
        run(None, resume=True)


def test_results_without_their_checkpoint_are_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "checkpoint.pt").unlink()
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"metrics.jsonl but no checkpoint.pt to resume from"):
        run(tmp_path, resume=True)
    assert contents(tmp_path) == before


def drop(part: str) -> Callable[[dict[str, Any]], Any]:
    return lambda state: state.pop(part)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("optimizer"), "is no whole checkpoint of bsconv train, it lacks 'optimizer'"),
        (drop("config"), "it lacks 'config'"),
        (lambda state: state["model"].popitem(), r"does not fit its own settings \(.*Missing key"),
        (
            lambda state: state["optimizer"]["0"]["param_groups"].pop(),
            "does not fit its own settings",
        ),
        (lambda state: state.update(generator=torch.zeros(3)), "does not fit its own settings"),
        (lambda state: state.update(epoch=3), "epoch is 3, the history has 2"),
        (lambda state: state["history"][0].pop("epoch"), "does not fit its own settings"),
        (lambda state: state["config"].update(epochs=0), "settings that this version does not"),
        (lambda state: state["config"].update(speed=1), "unknown setting 'speed'"),
    ],
)
def test_checkpoint_with_a_part_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[..., Any], message: str
) -> None:
    with monkeypatch.context() as patch:
        stop_in_epoch(patch, 3)
        with pytest.raises(Stop):
            run(tmp_path)
    path = tmp_path / "checkpoint.pt"
    state = read_checkpoint(path)
    damage(state)
    write_checkpoint(path, state)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before


def test_two_runs_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = []
    plain = training.evaluate

    def evaluate(*arguments: Any, **settings: Any) -> float:
        if not messages:  # in the middle of the first run, a second one starts
            with pytest.raises(ValueError, match="another process is training in") as caught:
                run(tmp_path, resume=True)
            messages.append(str(caught.value))
        return plain(*arguments, **settings)

    monkeypatch.setattr(training, "evaluate", evaluate)
    run(tmp_path)
    assert len(messages) == 1
    run(tmp_path / "straight")
    assert_same_run(tmp_path / "straight", tmp_path)


def test_a_folder_that_another_run_made_at_the_same_time_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, folder = _runs.locked, tmp_path / "run"

    def locked_by_another(path: Path) -> contextlib.AbstractContextManager[None]:
        """Both have seen that the folder is not there; the other is the first to lock it."""
        stack.enter_context(plain(path))
        return plain(path)

    with contextlib.ExitStack() as stack:
        monkeypatch.setattr(_runs, "locked", locked_by_another)
        with pytest.raises(ValueError, match="another process is training in"):
            run(folder)
        assert [path.name for path in folder.iterdir()] == [".lock"]


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.pt.0a1b2c3d.tmp").write_bytes(b"half a check")
    run(tmp_path)
    assert sorted(name for name in contents(tmp_path) if name != ".lock") == FILES


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot take images"):
        run(tmp_path / "run", image_size=1)
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="cannot take images"):
        run(tmp_path / "mine", image_size=1)
    assert (tmp_path / "mine").is_dir()


def test_full_disk_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "straight")
    out = tmp_path / "run"
    plain, calls = os.fsync, iter(range(100))

    def fsync(descriptor: int) -> None:
        # config.json and its folder, checkpoint.pt and folder, metrics.jsonl and folder, ...
        if next(calls) == 6:
            raise OSError(28, "No space left on device")
        plain(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match=r"cannot write .*checkpoint.pt: the disk is full"):
            run(out)
    assert read_checkpoint(out / "checkpoint.pt")["epoch"] == 1
    run(out, resume=True)
    assert_same_run(tmp_path / "straight", out)


# --- real kills -----------------------------------------------------------------------------------

# Starts runs as `bsconv train` does, each in a process of its own that is forked after the imports,
# and kills them: so many seconds after the training began, or (a function and a number) at that
# call of it.
KILLER = """
import json, os, signal, sys, time
import torch
from bsconv.__main__ import main
from bsconv.experiments.training import _train as training

kills, arguments = json.loads(sys.argv[1]), sys.argv[2:]
torch.set_num_threads(1)
torch.optim.SGD([torch.zeros(1)], 0.1)  # imports 900 modules, once is enough


def tell_when_training_begins(pipe):
    plain = training.check_fit

    def check_fit(*arguments):
        plain(*arguments)
        os.write(pipe, b"!")

    training.check_fit = check_fit


def die_at(function, number):
    plain, calls = getattr(os, function), iter(range(1, 10**6))

    def replacement(*arguments):
        if next(calls) == number:
            if function == "fsync":  # half of the file has reached the disk
                os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*arguments)

    setattr(os, function, replacement)


for kill in kills:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if isinstance(kill, list):
                die_at(*kill)
            elif kill is not None:
                tell_when_training_begins(writer)
            code = main(arguments)
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(writer)
    if isinstance(kill, float):
        os.read(reader, 1)
        time.sleep(kill)
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    status = os.waitpid(child, 0)[1]
    print("ended by", os.WTERMSIG(status) if os.WIFSIGNALED(status) else "itself", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    noise = random.Random(0)
    for part, count in (("train", 8), ("test", 2)):
        for name in "abcd":
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = Image.frombytes("RGB", (8, 8), noise.randbytes(192))
                image.save(folder / f"{number:02}.png")
    arguments = [
        *("train", "--model", "cifar_resnet20_bsconvs_p1d4"),
        *("--dataset", str(tmp_path / "images"), "--image-size", "8", "--batch-size", "16"),
        *("--epochs", "16", "--recipe", "fast", "--device", "cpu", "--seed", "1"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}

    def bsconv(*command: str) -> str:
        ended = subprocess.run(
            [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    # the real command line, not interrupted
    bsconv("-m", "bsconv", *arguments, "--out", str(straight))
    rows = (straight / "metrics.jsonl").read_text().splitlines()
    epoch = sum(json.loads(row)["seconds"] for row in rows) / len(rows)

    chance = random.Random(3)
    times = [chance.uniform(0, 1.5) * epoch for _ in range(10)]
    # the first checkpoint half written (a run that begins writes config.json before it), a later
    # one too; whole but not yet in place; in place, but the metrics are not
    writes: list[Any] = [["fsync", 3], ["fsync", 1], ["replace", 1], ["replace", 2], ["fsync", 5]]
    kills = [*writes, *times]
    chance.shuffle(kills)
    kills = [["fsync", 1], *kills, None]  # config.json half written; at the end, no kill
    printed = bsconv(
        *("-c", KILLER, json.dumps(kills)), *arguments, "--out", str(killed), "--resume"
    )
    endings = [line for line in printed.splitlines() if line.startswith("ended by")]
    assert endings[-1] == "ended by itself", printed
    assert endings.count("ended by 9") >= 10, printed
    assert_same_run(straight, killed)
    assert read_checkpoint(killed / "checkpoint.pt")["epoch"] == 16
    assert not list(killed.glob(".*.tmp"))


def test_config_is_not_changed_by_the_run() -> None:
    settings = config(None, epochs=1)
    before = dataclasses.asdict(settings)
    train(settings, progress=False)
    assert dataclasses.asdict(settings) == before
