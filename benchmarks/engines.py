"""A call of a torchvision model and of its BSConv forms: PyTorch, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from .arguments import positive
from .contenders import run_in_turns
from .timing import Comparison

CONTENDERS = ("eager", "compiled", "onnxruntime", "openvino", "openvino-bf16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="resnet18", help="of torchvision (default resnet18)")
    parser.add_argument(
        "--variants", nargs="+", default=("dense", "U", "S"), choices=("dense", "U", "S")
    )
    parser.add_argument(
        "--engines", nargs="+", choices=CONTENDERS, help="default: those that are installed"
    )
    parser.add_argument(
        "--batch-sizes", nargs="+", type=positive, default=(1, 16), metavar="N", help="1 and 16"
    )
    parser.add_argument("--size", type=positive, default=224, help="pixels a side (default 224)")
    parser.add_argument(
        "--optimize", action="store_true", help="what is run or exported is optimised beforehand"
    )


def run(arguments: argparse.Namespace) -> Iterator[Comparison]:
    engines = _engines(arguments.engines)
    for batch_size in arguments.batch_sizes:
        for variant in arguments.variants:
            yield _compare(engines, variant, batch_size, arguments)


def _engines(asked: list[str] | None) -> list[str]:
    """Those asked for, which must be installed, or all that are; says which of all are not."""
    from bsconv.pytorch.inference import ENGINES

    missing = {name: ENGINES[name.partition("-")[0]].missing() for name in asked or CONTENDERS}
    missing = {name: what for name, what in missing.items() if what}
    if missing and asked:
        raise ValueError("; ".join(f"{name} {what}" for name, what in missing.items()))
    for name, what in missing.items():
        print(f"engines: without {name}, which {what}")
    return [name for name in asked or CONTENDERS if name not in missing]


def _compare(
    engines: list[str], variant: str, batch_size: int, arguments: argparse.Namespace
) -> Comparison:
    size = (batch_size, 3, arguments.size, arguments.size)
    given = {
        "model": arguments.model,
        "variant": variant,
        "optimize": arguments.optimize,
        "size": size,
    }
    contenders = {engine: {"engine": engine, **given} for engine in engines}
    seconds, notes = run_in_turns("engines_child", contenders, arguments.rounds, arguments.threads)
    what = arguments.model if variant == "dense" else f"{arguments.model}, BSConv-{variant}"
    what += f", {'x'.join(map(str, size))}" + (", optimised" if arguments.optimize else "")
    return Comparison(what, seconds, reference=engines[0], notes=notes)
