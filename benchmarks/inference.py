"""A call of a torchvision model: our BSConv form optimised, the published one, dense optimised."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from .contenders import run_in_turns
from .published import ADVICE, is_installed
from .timing import Comparison

MODELS = ("resnet18", "resnet34", "vgg16_bn")
DTYPES = ("float32", "bfloat16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="MODEL")
    parser.add_argument("--variants", nargs="+", default=("U",), choices=("U", "S", "CP"))
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES)
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--batch-size", type=int, default=16, help="default 16")
    parser.add_argument("--size", type=int, default=224, help="pixels a side (default 224)")


def run(arguments: argparse.Namespace) -> Iterator[Comparison]:
    with_published = is_installed()
    if not with_published:
        print(f"inference: without the published package; {ADVICE}")
    for model in arguments.models:
        for dtype in arguments.dtypes:
            for variant in arguments.variants:
                contenders = {"ours": variant, "dense": "dense"}
                if with_published and variant != "CP":  # which it does not have
                    contenders["published"] = variant
                yield _compare(model, dtype, contenders, arguments)


def _compare(
    model: str, dtype: str, contenders: dict[str, str], arguments: argparse.Namespace
) -> Comparison:
    size = (arguments.batch_size, 3, arguments.size, arguments.size)
    given = {
        name: {
            "model": model,
            "variant": variant,
            "dtype": dtype,
            "size": size,
            "device": arguments.device,
            "published": name == "published",
        }
        for name, variant in contenders.items()
    }
    seconds, notes = run_in_turns("inference_child", given, arguments.rounds, arguments.threads)
    what = f"{model}, BSConv-{contenders['ours']}, {'x'.join(map(str, size))}, {dtype}"
    what += "" if arguments.device == "cpu" else f", {arguments.device}"
    return Comparison(what, seconds, notes=notes)
