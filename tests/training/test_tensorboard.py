"""Curves for TensorBoard where it is installed, and no trace of it elsewhere."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from bsconv.experiments.training._history import EpochMetrics, History
from bsconv.experiments.training._tensorboard import EventFile


class Writer:
    """What the file uses of torch.utils.tensorboard.SummaryWriter."""

    number = 0

    def __init__(self, folder: str, filename_suffix: str) -> None:
        Writer.number += 1
        self.path = Path(folder) / f"events.out.tfevents.{Writer.number}{filename_suffix}"
        self.path.touch()

    def add_scalar(self, name: str, value: float, step: int) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps([step, name, value]) + "\n")

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class Failing(Writer):
    def flush(self) -> None:
        raise OSError(28, "No space left on device")


class Unwilling(Writer):
    def __init__(self, *_: Any, **__: Any) -> None:
        raise TypeError("descriptors cannot be created directly")  # what an old protobuf says


def install(monkeypatch: pytest.MonkeyPatch, writer: type[Writer] | None) -> None:
    module = types.ModuleType("torch.utils.tensorboard")
    if writer is not None:
        module.SummaryWriter = writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)


def epochs(*numbers: int) -> History:
    return History(EpochMetrics(number, 1 / number, 50.0 + number, 0.1, 2.5) for number in numbers)


def written(folder: Path) -> list[Any]:
    return [
        json.loads(line)
        for path in sorted(folder.glob("events.out.tfevents.*.bsconv"))
        for line in path.read_text().splitlines()
    ]


def test_every_epoch_is_there_once_also_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, Writer)
    (tmp_path / "events.out.tfevents.1.mine").write_text("of another program")
    first = EventFile(tmp_path, History())
    for metrics in epochs(1, 2, 3):
        first.add(metrics)
    first.close()
    # killed after it had written epoch 3 here, or resumed from the checkpoint of epoch 2
    second = EventFile(tmp_path, epochs(1, 2))
    for metrics in epochs(3, 4):
        second.add(metrics)
    second.close()
    found = written(tmp_path)
    assert [step for step, name, _ in found if name == "train_loss"] == [1, 2, 3, 4]
    assert [4, "test_top1", 54.0] in found
    assert {name for _, name, _ in found} == {
        *("train_loss", "test_top1", "learning_rate", "seconds")
    }
    assert (tmp_path / "events.out.tfevents.1.mine").read_text() == "of another program"


@pytest.mark.parametrize("writer", [None, Unwilling, Failing])
def test_it_never_stops_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: type[Writer] | None
) -> None:
    install(monkeypatch, writer)
    events = EventFile(tmp_path, epochs(1))
    for metrics in epochs(2, 3):
        events.add(metrics)
    events.close()
    if writer is not Failing:
        assert list(tmp_path.iterdir()) == []
