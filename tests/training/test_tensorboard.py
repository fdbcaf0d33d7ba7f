"""Curves for TensorBoard where it is installed, and no trace of it elsewhere."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from bsconv.experiments.training import _tensorboard
from helpers.small_runs import linear, noise, run, run_until, use

WRITERS: list["Writer"] = []


class Writer:
    """What runs use of torch.utils.tensorboard.SummaryWriter."""

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.closed = folder, purge_step, False
        self.points: list[tuple[int, str, float]] = []
        self.flushed = 0
        WRITERS.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.points.append((step, name, value))

    def flush(self) -> None:
        self.flushed = len(self.points)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, linear, noise())
    WRITERS.clear()


def install(monkeypatch: pytest.MonkeyPatch, **names: Any) -> None:
    module = types.ModuleType("torch.utils.tensorboard")
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)


def test_every_epoch_is_there_also_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, SummaryWriter=Writer)
    run_until(3, out=tmp_path, epochs=3)
    history = run(resume=True, out=tmp_path, epochs=3)
    first, second = WRITERS
    assert (first.folder, first.purge_step, second.purge_step) == (str(tmp_path), 1, 3)
    names = ["train_loss", "test_top1", "learning_rate", "seconds"]
    assert first.points + second.points == [
        (row.epoch, name, getattr(row, name)) for row in history for name in names
    ]
    assert [writer.flushed for writer in WRITERS] == [8, 4]
    assert first.closed
    assert second.closed


def test_without_the_package_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    assert _tensorboard.open_curves(tmp_path, 0) is None
    assert list(tmp_path.iterdir()) == []
