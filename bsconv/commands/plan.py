"""Say which layers of a model BSConv would replace, and what that saves; nothing is trained."""

from __future__ import annotations

import argparse
import dataclasses

from ._arguments import MODEL_HELP, add_num_classes, add_replacement, check_share
from ._json import add_json, print_json
from ._models import usual_classes

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
    add_json(parser, "model, layers, parameters_before, parameters_after")


def run(arguments: argparse.Namespace) -> int:
    check_share(arguments.p, arguments.bsconv)

    from ..experiments.model_sources import build_model
    from ..pytorch import BSConvS_Replacer, BSConvU_Replacer

    settings = {name: getattr(arguments, name) for name in ("exclude", "dimensions")}
    settings["with_bn"] = bool(arguments.with_bn)
    replacer: BSConvS_Replacer | BSConvU_Replacer = BSConvU_Replacer(**settings)
    if arguments.bsconv == "s":
        replacer = BSConvS_Replacer(p=0.25 if arguments.p is None else arguments.p, **settings)
    classes = arguments.num_classes or usual_classes(arguments.model)
    plan = replacer.plan(build_model(arguments.model, classes))
    if arguments.json:
        print_json(model=arguments.model, **dataclasses.asdict(plan))
    else:
        print(plan)
    return 0
