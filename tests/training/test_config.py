"""What a training run may be set to: schedules, rules, and settings that survive JSON."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bsconv.experiments.config import TrainConfig
from helpers.small_runs import config

# --- schedules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "milestones", "expected"),
    [
        (200, None, [100, 150, 180]), (100, None, [50, 75, 90]), (10, None, [5, 7, 9]),
        (2, None, [1]), (1, None, []), (7, (2, 3), [2, 3]),
    ],
)  # fmt: skip
def test_published_schedule_is_that_of_multi_step_lr(epochs, milestones, expected) -> None:
    settings = TrainConfig(epochs=epochs, milestones=milestones)
    steps_per_epoch = 3
    ours = [settings.learning_rate_at(step, steps_per_epoch) for step in range(3 * epochs)]

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, expected, gamma=0.1)
    theirs = []
    for _ in range(epochs):
        theirs += scheduler.get_last_lr() * steps_per_epoch
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_published_defaults() -> None:
    settings = TrainConfig().resolved()
    assert (settings.epochs, settings.batch_size) == (200, 128)
    assert (settings.learning_rate, settings.momentum, settings.weight_decay) == (0.1, 0.9, 1e-4)
    assert settings.milestones == (100, 150, 180)
    assert (settings.crop_padding, settings.flip, settings.cutout) == (4, True, 0)
    assert settings.alpha == 0.1


@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(10, 391), (1, 100), (3, 1), (1, 1)])
def test_fast_schedule_is_two_straight_lines(epochs: int, steps_per_epoch: int) -> None:
    settings = TrainConfig(recipe="fast", epochs=epochs, learning_rate=0.5)
    steps = epochs * steps_per_epoch
    rates = np.array([settings.learning_rate_at(step, steps_per_epoch) for step in range(steps)])
    # before the first step, at the peak, after the last step
    rising = np.interp(np.arange(steps) + 1, [0, 0.15 * steps], [0, 0.5])
    falling = np.interp(np.arange(steps), [0.15 * steps, steps], [0.5, 0])
    np.testing.assert_allclose(rates, np.minimum(rising, falling), rtol=1e-12)
    assert rates.min() > 0


# --- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(({name: value}, f"{name} needs a whole number >= 1.*, got {value!r}")
          for name in ("epochs", "batch_size", "train_limit", "test_limit", "image_size")
          for value in (0, -3, 1.5, True, "3")),
        *(({name: -1}, f"{name} needs a whole number >= 0.*, got -1")
          for name in ("seed", "crop_padding", "cutout")),
        ({"seed": 2**63}, "seed needs a whole number >= 0 and <= 9223372036854775807, got 922"),
        *(({"learning_rate": value}, f"learning_rate needs a number > 0 or None, got {value!r}")
          for value in (0.0, math.nan, math.inf, "0.1", True)),
        *(({"momentum": value}, f"momentum needs a number >= 0 and < 1 or None, got {value}")
          for value in (1.0, -0.1)),
        ({"weight_decay": -1.0}, "weight_decay needs a number >= 0 or None, got -1.0"),
        ({"alpha": -1.0}, "alpha needs a number >= 0, got -1.0"),
        ({"out": 3}, "out needs the path of a folder or None, got 3"),
        *(({"p": value}, f"p needs a number >= 0 and <= 1, got {value}") for value in (1.5, -0.5)),
        ({"recipe": "slow"}, "recipe needs 'published' or 'fast' or 'finetune', got 'slow'"),
        ({"bsconv": "x"}, "bsconv needs 'u' or 's' or None, got 'x'"),
        ({"init": "zeros"}, "init needs 'default' or 'matched' or 'published', got 'zeros'"),
        ({"optimizer": "lion"}, "optimizer needs 'sgd' or 'muon' or 'adam' or None, got 'lion'"),
        ({"precision": "half"}, "precision needs 'float32' or 'bfloat16' or 'auto', got 'half'"),
        ({"plan": "joined"}, "plan needs 'factored' or 'merged' or 'auto', got 'joined'"),
        *(({"compile": value}, f"compile needs True or False or None, got {value!r}")
          for value in ("yes", 2, "auto")),
        *(({"milestones": value}, r"milestones needs whole numbers >= 1 or None, got")
          for value in ((0,), (1.5,), 3, "1")),
        ({"milestones": (3,), "recipe": "fast"},
         r"milestones needs a recipe that has some, got \(3,\) with recipe='fast'"),
        ({"model": ""}, "model needs a name, got ''"),
        ({"dataset": None}, "dataset needs a name, got None"),
        ({"data": {}}, "data needs the path of a folder or None, got {}"),
        ({"out": ""}, "out needs the path of a folder or None, got ''"),
        ({"weights": ""}, "weights needs a file of weights or a run's folder or None, got ''"),
        ({"flip": "no"}, "flip needs True or False, got 'no'"),
    ],
)  # fmt: skip
def test_a_value_that_breaks_its_rule(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_config_is_frozen_takes_paths_and_survives_json(tmp_path: Path) -> None:
    settings = config(out=tmp_path, data=tmp_path, milestones=[1], epochs=2)
    assert (settings.out, settings.data, settings.milestones) == (str(tmp_path),) * 2 + ((1,),)
    settings = dataclasses.replace(settings, bsconv="s", p=7 / 12).resolved()
    assert TrainConfig.from_dict(json.loads(settings.to_json())) == settings
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.epochs = 3  # type: ignore[misc]
    assert settings.difference(dataclasses.replace(settings, out=None, data=None)) is None
    # the recipe's own numbers, given by hand, make no difference
    by_hand = dataclasses.replace(TrainConfig(), learning_rate=0.1, milestones=(100, 150, 180))
    assert TrainConfig().difference(by_hand) is None
    assert TrainConfig().difference(TrainConfig(recipe="fast")) is not None
