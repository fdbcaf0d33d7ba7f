"""Training runs of milliseconds, in this process."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bsconv.experiments.data import ImageDataset
from bsconv.experiments.training import History, TrainConfig, _inputs, _models, _train, train

Use = Callable[..., None]  # as the fixture is that calls ``use`` below


def noise(train: int = 20, test: int = 12, size: int = 8, classes: int = 4) -> ImageDataset:
    """Images and labels that are drawn, the same each time."""
    generator = torch.Generator().manual_seed(5)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        shape = (count, 3, size, size)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return images, torch.randint(0, classes, (count,), generator=generator)

    names = tuple(f"class {index}" for index in range(classes))
    return ImageDataset("noise", names, *draw(train), *draw(test))


def linear(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, classes))


def with_all_state(classes: int) -> nn.Module:
    """Has all that has a state: weights, BatchNorm statistics, dropout's use of the global one."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(32, classes),
    )  # fmt: skip


def use(monkeypatch: Any, model: Callable[[int], nn.Module], data: Any = None) -> None:
    """``train`` sees this model (a function of the number of classes) and these images."""
    dataset = data or noise()
    monkeypatch.setattr(_models, "build_model", lambda name, classes, **_: model(classes))
    monkeypatch.setattr(_inputs, "load_dataset", lambda *_, **__: dataset)


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is written to a terminal in place of stderr."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def config(**settings: Any) -> TrainConfig:
    return TrainConfig(**{"epochs": 2, "batch_size": 8, "device": "cpu", **settings})


def run(resume: bool = False, **settings: Any) -> History:
    return train(config(**settings), resume=resume, progress=False)


def weights(history: History) -> dict[str, Tensor]:
    assert history.model is not None
    return history.model.state_dict()


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a run but for its lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def run_until(epoch: int, resume: bool = False, **settings: Any) -> None:
    """A run that is interrupted before it evaluates ``epoch``, counted from where it starts."""
    plain, calls = _train.evaluate, iter(range(1, epoch + 1))

    def evaluate(*arguments: Any, **more: Any) -> float:
        if next(calls) == epoch:
            raise KeyboardInterrupt
        return plain(*arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_train, "evaluate", evaluate)
        with pytest.raises(KeyboardInterrupt):
            run(resume, **settings)
