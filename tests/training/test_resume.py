"""A run that is stopped and resumed ends as if nothing had happened, and harms no other run."""

import contextlib
import dataclasses
import json
import signal
import sys
import tarfile
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import pytest
import torch
from torch import nn

from bsconv.__main__ import main
from bsconv.experiments.files import checkpoints
from bsconv.experiments.files.checkpoints import read_checkpoint, read_trained, write_checkpoint
from bsconv.experiments.training import _job, _run_folder, _steps, _train, terminable, train
from bsconv.pytorch import BSConvS, BSConvU, BSConvU_Replacer, _layer_plans
from helpers import small_runs
from helpers.same_runs import check_refused, check_same
from helpers.small_runs import config, contents, noise, run, run_until, weights, with_all_state

FILES = ["checkpoint.pt", "config.json", "metrics.jsonl", "model.safetensors"]
FAST = {"epochs": 4, "recipe": "fast"}
UNFIT = "checkpoint.pt holds no state that fits its settings:"


@pytest.fixture(autouse=True)
def small(use: Callable[..., None]) -> None:
    use(with_all_state)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the FAST settings that nobody disturbed."""
    out = tmp_path_factory.mktemp("straight") / "run"
    with pytest.MonkeyPatch.context() as patch:
        small_runs.use(patch, with_all_state)
        run(out=out, **FAST)
    return out


# --- the files ------------------------------------------------------------------------------------


def test_out_holds_the_run(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    history = run(out=out, **FAST)
    assert sorted(contents(out)) == FILES
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    names = ["epoch", "train_loss", "test_top1", "learning_rate", "seconds", "penalty"]
    assert [list(row) for row in rows] == [names] * 4
    assert rows == history.to_dicts()
    saved = json.loads((out / "config.json").read_text())
    assert (saved["learning_rate"], saved["epochs"], saved["device"]) == (0.3, 4, "cpu")


def test_curves_for_tensorboard_go_on_after_a_resume(tmp_path, monkeypatch) -> None:
    writer = Mock()
    module = types.SimpleNamespace(SummaryWriter=Mock(return_value=writer))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    run_until(3, out=tmp_path, epochs=3)
    history = run(resume=True, out=tmp_path, epochs=3)
    opened = [call(str(tmp_path), purge_step=1), call(str(tmp_path), purge_step=3)]
    assert module.SummaryWriter.call_args_list == opened
    points = [
        call.add_scalar(name, getattr(row, name), row.epoch)
        for row in history
        for name in ("train_loss", "penalty", "test_top1", "learning_rate", "seconds")
    ]
    two_epochs = [*points[:5], call.flush(), *points[5:10], call.flush(), call.close()]
    assert writer.method_calls == [*two_epochs, *points[10:], call.flush(), call.close()]


# --- going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["published", "fast"])
def test_resumed_after_each_epoch(tmp_path: Path, recipe: str) -> None:
    run(out=tmp_path / "straight", epochs=4, recipe=recipe)
    for epoch in (1, 2, 2, 2):  # in epochs 1, 2, 3, 4
        run_until(epoch, resume=True, out=tmp_path / "broken", epochs=4, recipe=recipe)
        torch.rand(7)  # what happens in between is of no matter
    history = run(resume=True, out=tmp_path / "broken", epochs=4, recipe=recipe)
    check_same(tmp_path / "straight", tmp_path / "broken")
    assert [row.epoch for row in history] == [1, 2, 3, 4]
    assert history.model is not None


# where each phase of a run begins
PHASES: dict[str, tuple[Any, str]] = {
    "opening the folder": (_run_folder.Run, "read"),
    "looking at the model": (_job, "check_model"),
    "reading the data": (_job, "find_dataset"),
    "making the model": (_job, "make_model"),
    "trying the model": (_job, "check_fit"),
    "choosing how to compute": (_job, "choose_execution"),
    "making the optimiser": (_job, "make_optimizer"),
    "writing the settings": (_run_folder, "write_atomically"),
    "training": (_train, "augment"),
    "testing": (_train, "evaluate"),
    "writing the checkpoint": (checkpoints, "write_checkpoint"),
    "writing the weights": (checkpoints, "write_trained"),
}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_in_each_phase(tmp_path, straight, monkeypatch, capsys, phase, number, code):
    place, name = PHASES[phase]
    plain, out = getattr(place, name), tmp_path / "a run"

    def interrupted(*arguments: Any, **settings: Any) -> Any:
        monkeypatch.setattr(place, name, plain)
        signal.raise_signal(number)
        return plain(*arguments, **settings)

    monkeypatch.setattr(place, name, interrupted)
    command = ["train", "--model", config().model, "--batch-size", "8", "--device", "cpu"]
    command += ["--epochs", "4", "--recipe", "fast"]
    assert main([*command, "--out", str(out)]) == code
    said = capsys.readouterr().err
    check_refused(code, said)
    resume = f"go on with: bsconv train --out '{out}' --resume"
    then = resume if out.exists() else "nothing was written yet"
    assert said == f"bsconv train: interrupted; {then}\n"
    run(resume=True, out=out, **FAST)
    check_same(straight, out)


def test_threads_leave_signals_alone() -> None:
    def work() -> Any:
        with terminable():
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor() as pool:
        assert pool.submit(work).result() == signal.SIG_DFL


def test_a_resumed_run_keeps_the_plans_it_measured(tmp_path, monkeypatch, use) -> None:
    use(lambda classes: BSConvU_Replacer().apply(with_all_state(classes)))
    monkeypatch.setattr(_steps, "WORTH_MEASURING", 0)
    settings = {"plan": "auto", "precision": "float32"}
    monkeypatch.setattr(_layer_plans, "fastest_plan", lambda *_: "merged")
    run(out=tmp_path / "whole", **settings)
    run_until(2, out=tmp_path / "broken", **settings)
    monkeypatch.setattr(_layer_plans, "fastest_plan", lambda *_: "factored")
    run(resume=True, out=tmp_path / "broken", **settings)
    kept = read_checkpoint(tmp_path / "broken" / "checkpoint.pt")["execution"]
    assert kept["plans"] == {"0": "merged"}
    check_same(tmp_path / "whole", tmp_path / "broken")


def test_metrics_are_written_again_from_the_checkpoint(tmp_path: Path, straight: Path) -> None:
    run_until(4, out=tmp_path, **FAST)
    kept = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(kept + kept + '{"epoch": 4, "train_')
    run(resume=True, out=tmp_path, **FAST)
    check_same(straight, tmp_path)


def test_a_finished_run_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(out=tmp_path)
    before = contents(tmp_path)
    again = train(config(out=tmp_path), resume=True)
    assert "is finished already, nothing to do" in capsys.readouterr().out
    assert contents(tmp_path) == before
    assert again == first
    torch.testing.assert_close(weights(again), weights(first), rtol=0, atol=0)


def earlier_net(classes: int) -> nn.Module:
    layers = BSConvU(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), BSConvS(4, 6, 3)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(6, classes)
    return nn.Sequential(*layers, *head)


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path, use: Callable[..., None]) -> None:
    """To the weights that the code of that time reached, up to rounding on other machines."""
    use(earlier_net)
    with tarfile.open(Path(__file__).with_name("earlier_run.tar.xz")) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # not in 3.11.2
        archive.extractall(tmp_path)
    trained = read_trained(tmp_path / "model.safetensors")
    assert (trained.num_classes, trained.config.epochs) == (4, 4)
    history = run(resume=True, out=tmp_path / "half", **FAST)
    assert [row.epoch for row in history] == [1, 2, 3, 4]
    torch.testing.assert_close(weights(history), trained.state, rtol=1e-3, atol=1e-4)
    earlier_net(4).load_state_dict(trained.state)


# --- what is refused ------------------------------------------------------------------------------


def refused(out: Path, match: str, **settings: Any) -> None:
    """The run in ``out`` cannot be resumed, which is said in one line and changes no file."""
    before = contents(out)
    with pytest.raises(ValueError, match=match) as caught:
        run(resume=True, out=out, **settings)
    assert "\n" not in str(caught.value)
    assert contents(out) == before


@pytest.mark.parametrize("present", FILES)
def test_a_folder_that_holds_a_run(tmp_path: Path, present: str) -> None:
    (tmp_path / present).write_bytes(b"precious")
    with pytest.raises(ValueError, match=rf"already holds a run \({present}\); resume it with"):
        run(out=tmp_path)
    refused(tmp_path, f"{tmp_path}")
    assert contents(tmp_path) == {present: b"precious"}


def test_resume_without_a_folder_or_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="resume needs out, the folder of the run to go on with"):
        run(resume=True)
    (tmp_path / "metrics.jsonl").touch()
    refused(tmp_path, r"metrics.jsonl but no checkpoint.pt to resume from")


def test_a_run_becomes_longer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(out=tmp_path, **FAST)
    history = train(config(out=tmp_path, **FAST | {"epochs": 6}), resume=True)
    assert [metrics.epoch for metrics in history] == [1, 2, 3, 4, 5, 6]
    said = "resuming after epoch 4, for 6 epochs and not 4; its cycle is stretched over all:"
    assert said in capsys.readouterr().out
    assert read_trained(tmp_path).config.epochs == 6
    for epoch in (1, 2):  # stopped before another epoch is over, and after it
        run_until(epoch, resume=True, out=tmp_path, **FAST | {"epochs": 8})
        kept = read_checkpoint(tmp_path / "checkpoint.pt")["model"]
        torch.testing.assert_close(read_trained(tmp_path).state, kept, rtol=0, atol=0)


@pytest.mark.parametrize("epochs_done", [0, 1])
def test_other_settings(tmp_path: Path, epochs_done: int) -> None:
    run_until(epochs_done + 1, out=tmp_path)
    others: dict[str, Any] = {
        "model": "cifar_resnet56", "dataset": "synthetic", "bsconv": "u", "epochs": 1,
        "batch_size": 4, "seed": 1, "recipe": "fast", "learning_rate": 0.2, "alpha": 0.2,
        "cutout": 8, "flip": False, "train_limit": 20, "image_size": 16,
    }  # fmt: skip
    for name, value in others.items():
        changed = "optimizer=.*'muon'" if name == "recipe" else f"{name}=.*, not {name}={value!r}"
        refused(tmp_path, f"holds a run with ({changed}|{name}=)", **{name: value})


def test_a_setting_of_no_effect_ends_no_run_that_has_begun(tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_job, "_check_used", Mock())
        run_until(2, out=tmp_path, alpha=0.5)
    assert len(run(resume=True, out=tmp_path, alpha=0.5)) == 2


@pytest.mark.parametrize("part", ["train_images", "train_labels", "test_images", "test_labels", ""])
def test_other_data(tmp_path: Path, straight: Path, use: Callable[..., None], part: str) -> None:
    run_until(2, out=tmp_path, **FAST)
    other = {part: getattr(noise(), part).flip(0)} if part else {"classes": tuple("abcd")}
    use(with_all_state, dataclasses.replace(noise(), **other))
    message = f"noise is not what the run in {tmp_path} began with; .*--weights {tmp_path}"
    refused(tmp_path, message, **FAST)
    use(with_all_state)
    run(resume=True, out=tmp_path, **FAST)
    check_same(straight, tmp_path)


def test_a_folder_of_images_may_have_moved(tmp_path: Path) -> None:
    run_until(2, out=tmp_path, dataset="images/", **FAST)
    run(resume=True, out=tmp_path, dataset="/elsewhere/images", **FAST)
    assert read_trained(tmp_path).config.dataset == "/elsewhere/images"
    assert checkpoints.read_config(tmp_path / "config.json").dataset == "/elsewhere/images"


def execution(**parts: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda state: state.update(execution={**state["execution"], **parts})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state.pop("optimizer"), f"{UNFIT} it lacks 'optimizer'"),
        (lambda state: state.pop("config"), "no model trained by bsconv train: it lacks 'config'"),
        (lambda state: state["model"].popitem(), f"{UNFIT} .*Missing key"),
        (lambda state: state["optimizer"]["0"]["param_groups"].pop(), UNFIT),
        (lambda state: state.update(generator=torch.zeros(3)), UNFIT),
        (lambda state: state.update(epoch=3), "epoch is 3, the history has 1"),
        (lambda state: state["history"][0].pop("epoch"), UNFIT),
        (lambda state: state["config"].update(epochs=0), "epochs needs a whole number >= 1, got 0"),
        (lambda state: state["config"].update(speed=1), "unexpected keyword argument 'speed'"),
        (lambda state: state.update(execution="fast"), UNFIT),
        (execution(mood="fast"), UNFIT),
        (execution(plans={"0": "merged"}), "plans do not fit the model"),
        (execution(plans={"nowhere": "merged"}), "plans do not fit the model"),
    ],
)
def test_a_checkpoint_that_does_not_fit(tmp_path, damage: Callable[..., Any], message: str) -> None:
    run_until(2, out=tmp_path)
    path = tmp_path / "checkpoint.pt"
    state = read_checkpoint(path)
    damage(state)
    write_checkpoint(path, state)
    refused(tmp_path, message)


def test_two_runs_in_one_folder(tmp_path, straight: Path, monkeypatch) -> None:
    plain = _train.evaluate

    def evaluate(*arguments: Any) -> float:
        """In the middle of the first run, a second one starts."""
        monkeypatch.setattr(_train, "evaluate", plain)
        with pytest.raises(ValueError, match="another process is training in"):
            run(resume=True, out=tmp_path, **FAST)
        return plain(*arguments)

    monkeypatch.setattr(_train, "evaluate", evaluate)
    run(out=tmp_path, **FAST)
    assert _train.evaluate is plain
    check_same(straight, tmp_path)


def test_a_folder_that_another_run_made_at_the_same_time_stays(tmp_path, monkeypatch) -> None:
    plain, folder = checkpoints.locked, tmp_path / "run"

    def locked_by_another(path: Path) -> contextlib.AbstractContextManager[None]:
        """Both have seen that the folder is not there; the other is the first to lock it."""
        stack.enter_context(plain(path))
        return plain(path)

    with contextlib.ExitStack() as stack:
        monkeypatch.setattr(checkpoints, "locked", locked_by_another)
        with pytest.raises(ValueError, match="another process is training in"):
            run(out=folder)
        assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("run", "mine"):
        with pytest.raises(ValueError, match="cannot take images"):
            run(out=tmp_path / name, image_size=1)
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "mine").is_dir()
