"""The progress bar of an epoch, and how soon a loss that is not finite is noticed."""

import io
import math
import sys

import pytest
import torch

from bsconv.experiments.training._processes import SINGLE
from bsconv.experiments.training._progress import LOOKS, EpochWatch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watch(batches: int, progress: bool = False, images: int = 4) -> EpochWatch:
    order = torch.arange(images * batches).split(images)
    return EpochWatch("epoch 1/2", order, SINGLE, progress)


@pytest.mark.parametrize("batches", [1, 3, 20, 391])
def test_it_gives_every_batch_and_the_mean_loss(batches: int) -> None:
    epoch = watch(batches)
    seen = []
    with epoch:
        for number, batch in enumerate(epoch):
            seen.append(batch)
            epoch.add(torch.tensor(float(number), requires_grad=True), len(batch))
    assert torch.equal(torch.cat(seen), torch.arange(4 * batches))
    assert epoch.mean_loss() == pytest.approx((batches - 1) / 2)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("batches", [5, 400])
def test_a_loss_that_is_no_number_ends_the_epoch_soon(loss: float, batches: int) -> None:
    epoch = watch(batches)
    for number, batch in enumerate(epoch):
        epoch.add(torch.tensor(loss if number >= 2 else 1.0), len(batch))
    assert number <= 2 + batches // LOOKS
    assert not math.isfinite(epoch.mean_loss())


def test_it_looks_at_the_loss_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, plain = [], EpochWatch.mean_loss
    monkeypatch.setattr(EpochWatch, "mean_loss", lambda self: looks.append(1) or plain(self))
    epoch = watch(391)
    for batch in epoch:
        epoch.add(torch.tensor(1.0), len(batch))
    assert 10 <= len(looks) <= LOOKS + 1


def test_the_bar_says_speed_time_left_and_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    epoch = watch(40, progress=True)
    epoch._bar.mininterval = 0
    with epoch:
        for batch in epoch:
            epoch.add(torch.tensor(1.25), len(batch))
    shown = terminal.getvalue()
    half = next(line for line in shown.split("\r") if " 80/160 " in line or " 80.0/160 " in line)
    assert half.startswith("epoch 1/2:  50%")
    assert "images/s" in half
    assert "<00:" in half  # time left
    assert "loss 1.250" in half


def test_an_interrupted_bar_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    def interrupted() -> None:
        with watch(3, progress=True) as epoch:
            for batch in epoch:
                epoch.add(torch.tensor(1.0), len(batch))
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    *_, bar, last = terminal.getvalue().split("\r")
    assert bar.strip() == last == ""


@pytest.mark.parametrize("progress", [True, False])
def test_no_bar_without_a_terminal_or_a_wish(
    monkeypatch: pytest.MonkeyPatch, progress: bool
) -> None:
    stream = io.StringIO() if progress else Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    epoch = watch(3, progress=progress)
    for batch in epoch:
        epoch.add(torch.tensor(1.0), len(batch))
    assert stream.getvalue() == ""
