"""Write a model for other programs, as ONNX or as an exported program of torch.

ONNX is of opset 18, in one file with the weights inside, its input "images", its output "logits";
ONNX Runtime and OpenVINO both read it. The file computes what the model does in eval mode; where an
engine that runs it is installed, the command runs it and compares it with PyTorch.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from . import _arguments as shared
from ._models import add_chosen, chosen_model, say_random

if TYPE_CHECKING:
    from torch import Tensor

HELP = "write a model as ONNX or as an exported program"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_chosen(parser)
    shared.add_replacement(parser)
    shared.add_num_classes(parser, of_weights=True)
    text = "onnx: a .onnx file; exported-program: a .pt2 file for torch.export.load"
    add("--format", choices=["onnx", "exported-program"], required=True, help=text)
    add("--out", type=Path, required=True, metavar="FILE")
    shared.add_input_size(parser)
    add("--batch-size", type=shared.count, default=1, metavar="N", help="default 1")
    add("--dynamic-batch", action="store_true", help="batches of any size, rather than of N")
    add("--dynamic-size", action="store_true", help="images of any size that the model can take")
    text = "fold BatchNorms and multiply layers into one where that is faster here; prints what was"
    add("--optimize", action="store_true", help=f"{text} done")
    shared.add_settings(parser, *shared.NORMALIZATION)


def run(arguments: argparse.Namespace) -> None:
    import torch

    from ..experiments.export import check_export, export_model
    from ..experiments.own_code import is_code
    from ..experiments.training import answers
    from ..pytorch.inference import optimize_for_inference

    check_export(arguments.out, arguments.format)
    model, config, size, classes = chosen_model(arguments)
    name, normalization = config.model, config.normalization
    batch, dynamic = arguments.batch_size, arguments.dynamic_batch
    # where any size of batches will do, the comparison takes another one than the example
    images = torch.rand(batch + dynamic, *size, generator=torch.Generator().manual_seed(0))
    images = normalization.apply(images)
    expected = answers(model, images, name, "another --input-size")
    if not (arguments.checkpoint or arguments.pretrained or arguments.weights or is_code(name)):
        say_random("export", name, "--checkpoint, --pretrained or --weights")
    if arguments.optimize:
        optimized = optimize_for_inference(model, images[:batch], compile=False)
        print(optimized.report)
        model = optimized
    notes = {
        "classes": classes or [f"class {number}" for number in range(expected.shape[1])],
        "input_size": size,
        "resize": config.resize_to(size[-1]) or "squash",
        "mean": normalization.mean,
        "std": normalization.std,
    }
    options = {"format": arguments.format, "dynamic_size": arguments.dynamic_size, "notes": notes}
    export_model(model, images[:batch], arguments.out, dynamic_batch=dynamic, **options)
    print(_written(arguments, name, size))
    print(_difference(expected, arguments.out, images))


def _written(arguments: argparse.Namespace, name: str, size: tuple[int, ...]) -> str:
    from ..engines import OPSET

    is_onnx = arguments.format == "onnx"
    kind = f"ONNX of opset {OPSET}" if is_onnx else "an exported program of torch"
    count = "any" if arguments.dynamic_batch else arguments.batch_size
    sides = ("any", "any") if arguments.dynamic_size else size[1:]
    shape = " x ".join(map(str, (count, size[0], *sides)))
    megabytes = arguments.out.stat().st_size / 1e6
    return f"{arguments.out}: {name} as {kind}, {megabytes:.2f} MB, for {shape}"


def _difference(expected: Tensor, path: Path, images: Tensor) -> str:
    """How far the outputs of the file are from PyTorch's, where there is an engine to run it."""
    from ..experiments.export import engine_of, load_exported
    from ..experiments.training import logits_of

    engine = engine_of(path)
    if importlib.util.find_spec(engine) is None:
        return f"not compared with PyTorch: that needs {engine}, pip install 'bsconv[onnx]'"
    found = logits_of(load_exported(path)(images))
    worst, largest = (float(values.abs().max()) for values in (found - expected, expected))
    text = f"largest difference from PyTorch: {worst:.1e}, of outputs up to {largest:.2g}"
    same = 100 * float((found.argmax(1) == expected.argmax(1)).float().mean())
    return f"{text}, the same class for {same:.1f} % of {len(found)} images ({engine})"
