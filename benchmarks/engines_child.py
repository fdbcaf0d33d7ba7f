"""A process that calls a torchvision model on one batch, by the engine it is told."""

from __future__ import annotations

import functools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
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

    from bsconv.pytorch._tools.timing import in_turns

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

    from bsconv.experiments.export import export_model
    from bsconv.experiments.export._run import load_exported

    name, _, precision = given["engine"].partition("-")
    if name in ("eager", "compiled"):
        network: Any = model.to(memory_format=torch.channels_last)
        if name == "compiled":
            network = torch.compile(network, options={"freezing": True})
        return functools.partial(network, images.contiguous(memory_format=torch.channels_last))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_model(model, images, path, format="onnx")
        threads = torch.get_num_threads()  # of this process, as it was told
        run = load_exported(path, name, threads=threads, bfloat16=precision == "bf16")
    return functools.partial(run, images)


if __name__ == "__main__":
    main()
