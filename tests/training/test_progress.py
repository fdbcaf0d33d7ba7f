"""The progress bar of an epoch, and how soon a loss that is not finite is noticed."""

import functools
import io
import math
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from tqdm import tqdm

from bsconv.experiments.training import _train, train
from helpers.small_runs import config, linear, noise, run

Use = Callable[..., None]


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("batches", "most"), [(5, 3), (100, 8), (97, 7)])
def test_a_loss_that_is_no_number_ends_the_epoch_soon(
    use: Use, monkeypatch: pytest.MonkeyPatch, loss: float, batches: int, most: int
) -> None:
    """It is looked at now and then: each look waits for the device."""
    use(linear, noise(train=batches))
    steps: list[Tensor] = []

    def train_step(*_: object) -> Tensor:
        steps.append(torch.tensor(loss if len(steps) == 2 else 1.0))
        return steps[-1]

    monkeypatch.setattr(_train, "train_step", train_step)
    with pytest.raises(FloatingPointError, match="the training loss became "):
        run(batch_size=1)
    assert len(steps) <= most


def test_the_loss_is_the_mean_over_the_images(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    use(linear)
    losses = iter([1.0, 2.0, 5.0] * 2)  # of 8, 8 and 4 images
    monkeypatch.setattr(_train, "train_step", lambda *_: torch.tensor(next(losses)))
    assert [row.train_loss for row in run()] == pytest.approx([44 / 20] * 2)


def test_the_bar_says_speed_time_left_and_loss(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    use(linear, noise(train=160))
    monkeypatch.setattr(_train, "tqdm", functools.partial(tqdm, mininterval=0))
    monkeypatch.setattr(_train, "train_step", lambda *_: torch.tensor(1.25))
    train(config(batch_size=4))
    shown = terminal.getvalue().split("\r")
    half = next(line for line in shown if " 80/160 " in line or " 80.0/160 " in line)
    assert half.startswith("epoch 1/2:  50%")
    for part in ("images/s", "<00:", "loss 1.250"):
        assert part in half


def test_an_interrupted_bar_is_taken_away(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)

    class Interrupted(nn.Flatten):
        def forward(self, images: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                raise KeyboardInterrupt
            return super().forward(images)

    use(lambda n: nn.Sequential(Interrupted(), nn.Linear(192, n)))
    with pytest.raises(KeyboardInterrupt):
        train(config())
    *_, bar, last = terminal.getvalue().split("\r")
    assert bar.strip() == last == ""


def test_no_bar_without_a_wish(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    use(linear)
    run()
    assert terminal.getvalue() == ""
