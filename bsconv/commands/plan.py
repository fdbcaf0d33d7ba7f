"""Say which layers of a model BSConv would replace, and what that saves; nothing is trained."""

from __future__ import annotations

import argparse

from ._arguments import MODEL_HELP, add_replacement

HELP = "say which layers BSConv would replace"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_replacement(parser)
    parser.add_argument(
        "--exclude", nargs="+", default=(), metavar="LAYER", help="layers to keep, by name"
    )
    parser.add_argument("--num-classes", type=int, default=1000, metavar="N", help="default 1000")


def run(arguments: argparse.Namespace) -> int:
    if arguments.num_classes < 1:
        raise ValueError(f"--num-classes must be at least 1, got {arguments.num_classes}")
    from ..experiments.model_sources import build_model
    from ..pytorch import BSConvS_Replacer, BSConvU_Replacer

    settings = {"with_bn": getattr(arguments, "with_bn", False), "exclude": arguments.exclude}
    replacer: BSConvS_Replacer | BSConvU_Replacer
    if getattr(arguments, "bsconv", "u") == "s":
        replacer = BSConvS_Replacer(p=getattr(arguments, "p", 0.25), **settings)
    else:
        replacer = BSConvU_Replacer(**settings)
    print(replacer.plan(build_model(arguments.model, arguments.num_classes)))
    return 0
