"""Write a model for other programs, as ONNX or as an exported program of torch.

ONNX is of opset 18, in one file with the weights inside, its input "images", its output "logits".
ONNX Runtime and OpenVINO both read it. What is written computes what the model does in
eval mode; where an engine is installed that runs it, it is run and compared with PyTorch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ._arguments import MODEL_HELP, add_replacement, add_weights, image_size
from ._trained_model import trained_model

if TYPE_CHECKING:
    from torch import Tensor, nn

HELP = "write a model as ONNX or as an exported program"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help=f"{MODEL_HELP}; not needed with --checkpoint, which names it",
    )
    add_weights(parser).add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR|FILE",
        help="the --out of `bsconv train` or `bsconv project`, which say themselves what they are",
    )
    add_replacement(parser)
    parser.add_argument(
        "--num-classes",
        type=int,
        metavar="N",
        help="of MODEL (default: as many as the weights have, else 1000)",
    )
    parser.add_argument(
        "--format",
        choices=["onnx", "exported-program"],
        required=True,
        help="onnx: a .onnx file; exported-program: a .pt2 file for torch.export.load",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--input-size",
        type=image_size,
        metavar="CxHxW",
        help="of one image, as 3x224x224 or 224 (default: what the model is made for)",
    )
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument(
        "--dynamic-batch", action="store_true", help="batches of any size, rather than of N"
    )
    parser.add_argument(
        "--optimize",
        action="store_true",
        help="fold BatchNorms and multiply layers into one where that is faster here; prints what "
        "was done",
    )


def run(arguments: argparse.Namespace) -> int:
    for option in ("batch_size", "num_classes"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise ValueError(f"--{option.replace('_', '-')} must be at least 1, got {value}")

    import torch

    from ..experiments.export import check_export, export_model

    check_export(arguments.out, arguments.format)
    name, model, usual = trained_model(arguments)
    size = arguments.input_size or usual
    dynamic = arguments.dynamic_batch
    # compared is a batch of another size than the example's, where any will do
    count = arguments.batch_size + dynamic
    images = torch.rand(count, *size, generator=torch.Generator().manual_seed(0))
    expected = _outputs(model.eval(), images, name)
    example = images[: arguments.batch_size]
    if arguments.optimize:
        model = _optimized(model, example)
    export_model(model, example, arguments.out, format=arguments.format, dynamic_batch=dynamic)
    shape = " x ".join(map(str, ("any" if dynamic else arguments.batch_size, *size)))
    megabytes = arguments.out.stat().st_size / 1e6
    print(f"{arguments.out}: {name} as {_kind(arguments.format)}, {megabytes:.2f} MB, for {shape}")
    print(_difference(expected, arguments.out, images))
    return 0


def _outputs(model: nn.Module, images: Tensor, name: str) -> Tensor:
    """What the model gives for these images; ValueError with one line where it cannot take them."""
    import torch

    try:
        with torch.no_grad():
            outputs: Tensor = model(images)
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        shape = " x ".join(map(str, images.shape[1:]))
        raise ValueError(
            f"{name} cannot take images of {shape} ({reason}); try another --input-size"
        ) from error
    return outputs


def _optimized(model: nn.Module, example: Tensor) -> nn.Module:
    from ..pytorch.inference import optimize_for_inference

    optimized = optimize_for_inference(model, example, compile=False)
    print(optimized.report)
    return optimized


def _kind(format: str) -> str:
    from ..experiments.export import ONNX_OPSET

    return f"ONNX of opset {ONNX_OPSET}" if format == "onnx" else "an exported program of torch"


def _difference(expected: Tensor, path: Path, images: Tensor) -> str:
    """How far the outputs of the file are from PyTorch's, where there is an engine to run it."""
    from ..experiments.exported import default_engine, is_installed, load_exported

    engine = default_engine(path)
    if not is_installed(engine):
        return f"not compared with PyTorch: that needs {engine}, pip install 'bsconv[export]'"
    worst = float((load_exported(path)(images) - expected).abs().max())
    largest = f"{float(expected.abs().max()):.2g}"
    return f"largest difference from PyTorch: {worst:.1e}, of outputs up to {largest} ({engine})"
