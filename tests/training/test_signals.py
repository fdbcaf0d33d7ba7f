"""Ctrl-C and SIGTERM: nothing that is finished is lost, and one line says how to go on."""

import signal
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from bsconv.__main__ import main
from bsconv.experiments.data import ImageDataset
from bsconv.experiments.files.checkpoints import read_checkpoint
from bsconv.experiments.training import TrainConfig, _inputs, train
from bsconv.experiments.training import _run_folder as _runs
from bsconv.experiments.training import _train as training
from bsconv.experiments.training._signals import Terminated, terminable, uninterrupted


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = torch.zeros(8, 3, 4, 4, dtype=torch.uint8), torch.arange(8) % 2
    data = ImageDataset("noise", ("a", "b"), images, labels, images, labels)
    monkeypatch.setattr(_inputs, "load_dataset", lambda *_, **__: data)
    net = lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(48, classes))  # noqa: E731
    monkeypatch.setattr(_inputs, "build_model", lambda name, classes, **_: net(classes))


def test_sigterm_is_an_interruption() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as caught, terminable():
        signal.raise_signal(signal.SIGTERM)
    assert type(caught.value) is Terminated
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_an_interruption_waits_until_the_work_is_done(
    number: signal.Signals, error: type[BaseException]
) -> None:
    done = []

    def work() -> None:
        signal.raise_signal(number)
        signal.raise_signal(number)
        done.append("work")

    with terminable():
        with pytest.raises(error) as caught, uninterrupted():
            work()
        assert type(caught.value) is error
        with uninterrupted():
            done.append("more")
        with pytest.raises(error):
            signal.raise_signal(number)
    assert done == ["work", "more"]


def test_a_failure_of_the_work_comes_first() -> None:
    with pytest.raises(OSError, match="full"), uninterrupted():
        raise OSError("full")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_are_left_alone() -> None:
    done = []

    def work() -> None:
        with terminable(), uninterrupted():
            done.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.SIG_DFL]


def test_an_epoch_that_is_being_saved_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = _runs.write_checkpoint

    def write_checkpoint(*arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)
        plain(*arguments)  # type: ignore[arg-type]

    config = TrainConfig(out=tmp_path, epochs=2, batch_size=4, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(_runs, "write_checkpoint", write_checkpoint)
        with pytest.raises(KeyboardInterrupt):
            train(config, progress=False)
    assert read_checkpoint(tmp_path / "checkpoint.pt")["epoch"] == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    assert len(train(config, progress=False, resume=True)) == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_says_how_to_go_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    code: int,
) -> None:
    plain, calls = training.evaluate, iter(range(1, 9))

    def evaluate(*arguments: object, **settings: object) -> float:
        if next(calls) == 2:
            signal.raise_signal(number)
        return plain(*arguments, **settings)  # type: ignore[arg-type]

    command = ["train", "--model", "cifar_resnet20", "--epochs", "3", "--device", "cpu"]
    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", evaluate)
        assert main([*command, "--out", str(tmp_path / "run")]) == code
    assert capsys.readouterr().err == (
        f"bsconv train: interrupted; go on with: bsconv train --out {tmp_path}/run --resume\n"
    )
    assert read_checkpoint(tmp_path / "run" / "checkpoint.pt")["epoch"] == 1
    assert main(["train", "--out", str(tmp_path / "run"), "--resume"]) == 0
