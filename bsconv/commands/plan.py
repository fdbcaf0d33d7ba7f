"""Say which layers of a model BSConv would replace, and what that saves; nothing is trained.

With a target, the variants are compared instead, and the largest within it is proposed.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ._arguments import (
    MODEL_HELP,
    add_input_size,
    add_num_classes,
    add_replacement,
    budget,
    check_share,
)
from ._json import add_json, print_json
from ._models import usual_classes, usual_size

if TYPE_CHECKING:
    from torch import nn

SHARES = ("1/2", "1/3", "1/4", "1/6", "1/8", "1/16")  # of BSConv-S
COLUMNS = ("form", "parameters", "macs", "share_of_parameters", "share_of_macs", "proposed")
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
    target = parser.add_mutually_exclusive_group()
    for what in ("parameters", "macs"):
        target.add_argument(
            f"--target-{what}",
            type=budget,
            metavar="SHARE",
            help=f"propose a variant with at most this share of the {what}, such as 30%%",
        )
    add_input_size(parser)
    add_json(parser, "model, layers, parameters_before, parameters_after; or model, variants")


def run(arguments: argparse.Namespace) -> int:
    check_share(arguments.p, arguments.bsconv)

    from ..experiments.model_sources import build_model
    from ..pytorch import BSConvS_Replacer, BSConvU_Replacer

    settings: dict[str, Any] = {"with_bn": bool(arguments.with_bn)}
    settings |= {name: getattr(arguments, name) for name in ("exclude", "dimensions")}
    replacer: BSConvS_Replacer | BSConvU_Replacer = BSConvU_Replacer(**settings)
    if arguments.bsconv == "s":
        replacer = BSConvS_Replacer(p=0.25 if arguments.p is None else arguments.p, **settings)
    classes = arguments.num_classes or usual_classes(arguments.model)
    if (arguments.target_parameters, arguments.target_macs) != (None, None):
        if arguments.bsconv is not None:
            raise ValueError("a target chooses the form itself, --bsconv goes without one")
        replacers = {"BSConv-U": BSConvU_Replacer(**settings)} | {
            f"BSConv-S, p = {p}": BSConvS_Replacer(p=Fraction(p), **settings) for p in SHARES
        }
        return _propose(arguments, lambda: build_model(arguments.model, classes), replacers)
    plan = replacer.plan(build_model(arguments.model, classes))
    if arguments.json:
        print_json(model=arguments.model, **dataclasses.asdict(plan))
    else:
        print(plan)
    return 0


def _propose(
    arguments: argparse.Namespace, build: Callable[[], nn.Module], replacers: dict[str, Any]
) -> int:
    """A table of the variants that the ``replacers`` make, with one proposed."""
    from ..pytorch import ModelProfiler
    from ..pytorch._tools.tables import text_table

    costs: dict[str, tuple[int, int]] = {}
    for form in ("dense", *replacers):
        model = build()
        size = arguments.input_size or usual_size(arguments.model, model)
        model = model if form == "dense" else replacers[form].apply(model)
        profile = ModelProfiler(model, (1, *size))
        costs[form] = profile.total_parameter_count, profile.total_mac_count
    counted = 0 if arguments.target_macs is None else 1
    share = arguments.target_macs if counted else arguments.target_parameters
    within = [form for form in costs if costs[form][counted] <= share * costs["dense"][counted]]
    proposed = max(within, key=lambda form: costs[form][counted], default=None)
    rows = []
    for form, cost in costs.items():
        shares = (own / whole for own, whole in zip(cost, costs["dense"], strict=True))
        rows.append(dict(zip(COLUMNS, (form, *cost, *shares, form == proposed), strict=True)))
    if arguments.json:
        print_json(model=arguments.model, variants=rows)
        return 0
    lines: list[list[Any]] = [
        [f"{cell:.1%}" if type(cell) is float else cell for cell in row.values()] for row in rows
    ]
    header = [name.replace("_", " ") for name in COLUMNS]
    print(text_table(header, [[*line[:-1], "yes" if line[-1] else ""] for line in lines]))
    if proposed is None:
        print(f"none costs {share:.0%} or less")
    print("of trained weights: bsconv project --budget gives each layer a form and rank of its own")
    return 0
