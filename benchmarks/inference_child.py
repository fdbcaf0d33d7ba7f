"""A process that calls a torchvision model on one batch: ours optimised, or as published."""

from __future__ import annotations

import statistics
from typing import Any

from .published import become_published
from .turns import Turns, given_arguments, stopwatch

CALLS = 5  # a turn; their median counts


def main() -> None:
    given = given_arguments()
    turns = Turns()
    turns.wait()
    if given["published"]:
        become_published()
    import torch

    torch.manual_seed(0)
    images = torch.randn(given["size"], device=given["device"])
    model, how = _model(given, images)
    with torch.inference_mode():

        def call() -> None:
            model(images)
            if images.is_cuda:
                torch.cuda.synchronize()

        call()
        while True:
            seconds = [stopwatch(call) for _ in range(CALLS)]
            turns.report(seconds=statistics.median(seconds), how=how)
            turns.wait()


def _model(given: dict[str, Any], images: Any) -> tuple[Any, str]:
    """What is called, and in words how it computes."""
    import torch
    import torchvision

    import bsconv.pytorch

    model = getattr(torchvision.models, given["model"])()
    if given["variant"] == "CP":
        from bsconv.experiments.inference_benchmark import with_shared_blueprints

        model = with_shared_blueprints(model, with_bn=False)
    elif given["variant"] != "dense":
        model = getattr(bsconv.pytorch, f"BSConv{given['variant']}_Replacer")().apply(model)
    if given["published"]:
        return model.eval().to(images.device), "as it comes, float32"
    optimized = bsconv.pytorch.optimize_for_inference(
        model.to(images.device), images, dtype=getattr(torch, given["dtype"])
    )
    report = optimized.report
    forms = sorted({layer.plan for layer in report.layers if layer.kind.startswith("BSConv")})
    return optimized, ", ".join([given["dtype"], report.memory_format, report.engine, *forms])


if __name__ == "__main__":
    main()
