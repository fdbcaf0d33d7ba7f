"""Say which layers of a model BSConv would replace, and what that saves; nothing is trained."""

from __future__ import annotations

import argparse

from ._arguments import MODEL_HELP, add_num_classes, add_replacement

HELP = "say which layers BSConv would replace"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_replacement(parser)
    parser.add_argument(
        "--exclude", nargs="+", default=(), metavar="LAYER", help="layers to keep, by name"
    )
    parser.add_argument(
        "--dimensions", nargs="+", type=int, choices=(1, 2, 3), default=(2,),
        help="of the convolutions to replace (default 2)",
    )  # fmt: skip
    add_num_classes(parser)


def run(arguments: argparse.Namespace) -> int:
    from ..experiments.model_sources import build_model
    from ..pytorch import BSConvS_Replacer, BSConvU_Replacer

    settings = {name: getattr(arguments, name) for name in ("exclude", "dimensions")}
    settings["with_bn"] = bool(arguments.with_bn)
    replacer: BSConvS_Replacer | BSConvU_Replacer = BSConvU_Replacer(**settings)
    if arguments.bsconv == "s":
        replacer = BSConvS_Replacer(p=0.25 if arguments.p is None else arguments.p, **settings)
    print(replacer.plan(build_model(arguments.model, arguments.num_classes)))
    return 0
