"""Write a model for other programs, as ONNX or as an exported program of torch.

ONNX is of opset 18, in one file with the weights inside, its input "images", its output "logits";
ONNX Runtime and OpenVINO both read it. The file computes what the model does in eval mode; where an
engine that runs it is installed, the command runs it and compares it with PyTorch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..experiments.config import FOLDER_SIZE, TrainConfig
from . import _models
from ._arguments import (
    MODEL_HELP,
    NORMALIZATION,
    add_input_size,
    add_num_classes,
    add_replacement,
    add_settings,
    add_weights,
    count,
    given_settings,
)

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
    add_num_classes(parser, of_weights=True)
    parser.add_argument(
        "--format",
        choices=["onnx", "exported-program"],
        required=True,
        help="onnx: a .onnx file; exported-program: a .pt2 file for torch.export.load",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    add_input_size(parser)
    parser.add_argument("--batch-size", type=count, default=1, metavar="N", help="default 1")
    parser.add_argument(
        "--dynamic-batch", action="store_true", help="batches of any size, rather than of N"
    )
    parser.add_argument(
        "--dynamic-size", action="store_true", help="images of any size that the model can take"
    )
    parser.add_argument(
        "--optimize",
        action="store_true",
        help="fold BatchNorms and multiply layers into one where that is faster here; prints what "
        "was done",
    )
    add_settings(parser, *NORMALIZATION)


def run(arguments: argparse.Namespace) -> int:
    import torch

    from ..experiments.export import check_export, export_model
    from ..experiments.training import answers
    from ..pytorch.inference import optimize_for_inference

    check_export(arguments.out, arguments.format)
    model, config, size, classes = _model(arguments)
    name, normalization = config.model, config.normalization
    batch, dynamic = arguments.batch_size, arguments.dynamic_batch
    # where any size of batches will do, the comparison takes another one than the example
    images = torch.rand(batch + dynamic, *size, generator=torch.Generator().manual_seed(0))
    images = normalization.apply(images)
    model.eval()
    expected = answers(model, images, name, "another --input-size")
    if not (arguments.checkpoint or arguments.pretrained or arguments.weights):
        _models.say_random("export", name, "--checkpoint, --pretrained or --weights")
    if arguments.optimize:
        optimized = optimize_for_inference(model, images[:batch], compile=False)
        print(optimized.report)
        model = optimized
    export_model(
        model,
        images[:batch],
        arguments.out,
        format=arguments.format,
        dynamic_batch=dynamic,
        dynamic_size=arguments.dynamic_size,
        notes={
            "classes": classes or [f"class {number}" for number in range(expected.shape[1])],
            "input_size": size,
            "resize": config.resize_to(size[-1]) or "squash",
            "mean": normalization.mean,
            "std": normalization.std,
        },
    )
    print(_written(arguments, name, size))
    print(_difference(expected, arguments.out, images))
    return 0


def _model(
    arguments: argparse.Namespace,
) -> tuple[nn.Module, TrainConfig, tuple[int, ...], Sequence[str]]:
    """The network; its name and how images are made for it; their size (C, H, W); the names of its
    classes where they are known."""
    from ..experiments.classifier import load_run
    from ..experiments.training import read_start

    name: str = arguments.model
    given: tuple[int, ...] | None = arguments.input_size
    if arguments.checkpoint is not None:
        _models.refuse_with_checkpoint(arguments, "MODEL")
        run = load_run(arguments.checkpoint)
        kept = run.config.model
        if name is not None and name.lower() != kept.lower():
            raise ValueError(f"{arguments.checkpoint} is a checkpoint of {kept}, not of {name}")
        chosen = TrainConfig(model=kept, **given_settings(arguments, *NORMALIZATION))
        size = given or (3, run.image_size, run.image_size)
        return run.model, chosen.images_as(run.config), size, run.classes
    if name is None:
        raise ValueError("MODEL or --checkpoint is missing")
    config = TrainConfig(**given_settings(arguments))
    weights = read_start(config)
    model = _models.model_by_name(config, arguments.num_classes, weights)
    if weights is None or weights.config is None:
        return model, config, given or _models.usual_size(name, model), ()
    config = config.images_as(weights.config)
    side = config.image_size or (FOLDER_SIZE if config.weights else None)
    size = given or ((3, side, side) if side else _models.usual_size(name, model))
    return model, config, size, weights.classes


def _written(arguments: argparse.Namespace, name: str, size: tuple[int, ...]) -> str:
    from ..pytorch.inference.engines import OPSET

    kind = "an exported program of torch"
    if arguments.format == "onnx":
        kind = f"ONNX of opset {OPSET}"
    count = "any" if arguments.dynamic_batch else arguments.batch_size
    sides = ("any", "any") if arguments.dynamic_size else size[1:]
    shape = " x ".join(map(str, (count, size[0], *sides)))
    megabytes = arguments.out.stat().st_size / 1e6
    return f"{arguments.out}: {name} as {kind}, {megabytes:.2f} MB, for {shape}"


def _difference(expected: Tensor, path: Path, images: Tensor) -> str:
    """How far the outputs of the file are from PyTorch's, where there is an engine to run it."""
    from ..experiments.export import engine_of, is_installed, load_exported
    from ..experiments.training import logits_of

    engine = engine_of(path)
    if not is_installed(engine):
        return f"not compared with PyTorch: that needs {engine}, pip install 'bsconv[onnx]'"
    found = logits_of(load_exported(path)(images))
    worst, largest = (float(values.abs().max()) for values in (found - expected, expected))
    text = f"largest difference from PyTorch: {worst:.1e}, of outputs up to {largest:.2g}"
    same = 100 * float((found.argmax(1) == expected.argmax(1)).float().mean())
    return f"{text}, the same class for {same:.1f} % of {len(found)} images ({engine})"
