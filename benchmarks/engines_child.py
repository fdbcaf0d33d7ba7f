"""A process that calls a torchvision model on one batch, by the engine it is told."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .turns import Turns, given_arguments

if TYPE_CHECKING:
    from torch import Tensor, nn

SECONDS = 0.5  # of a turn, whose median call counts


def main() -> None:
    given = given_arguments()
    turns = Turns()
    turns.wait()
    import torch

    from bsconv.basics.timing import in_turns

    torch.manual_seed(0)
    images = torch.rand(given["size"])
    model = _model(given, images)
    with torch.no_grad():
        expected = model(images)
        call = _engine(given, model, images)
        apart = float((call() - expected).abs().max() / expected.abs().max())
        while True:
            calls = in_turns({"call": call}, images.device, budget=SECONDS)
            seconds = statistics.median(calls["call"])
            turns.report(seconds=seconds, how=f"apart by {apart:.0e} of the largest output")
            turns.wait()


def _model(given: dict[str, Any], images: Tensor) -> nn.Module:
    import torchvision

    import bsconv.pytorch

    model: nn.Module = getattr(torchvision.models, given["model"])().eval()
    if given["variant"] != "dense":
        model = getattr(bsconv.pytorch, f"BSConv{given['variant']}_Replacer")().apply(model)
    if given["optimize"]:
        model = bsconv.pytorch.optimize_for_inference(model, images, compile=False)
    return model


def _engine(given: dict[str, Any], model: nn.Module, images: Tensor) -> Callable[[], Tensor]:
    import torch

    from bsconv.pytorch.inference import ENGINES, Setting

    name, _, precision = given["engine"].partition("-")
    setting = Setting(torch.bfloat16 if precision else torch.float32)
    if name in ("eager", "compiled"):
        setting = setting._replace(channels_last=True)
        images = images.contiguous(memory_format=torch.channels_last)
    runner: Any = ENGINES[name].build(model, images, setting)
    runner.piece = 0  # as the engine does it by itself
    return functools.partial(runner, images)


if __name__ == "__main__":
    main()
