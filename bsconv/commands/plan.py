"""Say which layers of a model BSConv would replace, and what that saves; nothing is trained.

With a target, the variants are compared instead, and the largest within it is proposed.
"""

from __future__ import annotations

import argparse
import dataclasses
from fractions import Fraction
from typing import Any

from ._arguments import (
    MODEL_HELP,
    add_input_size,
    add_num_classes,
    add_replacement,
    budget,
    check_share,
)
from ._models import usual_classes, usual_size
from ._output import add_json, print_json

SHARES = ("1/2", "1/3", "1/4", "1/6", "1/8", "1/16")  # of BSConv-S
HELP = "say which layers BSConv would replace"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODEL_HELP)
    add_replacement(parser)
    add("--exclude", nargs="+", default=(), metavar="LAYER", help="layers to keep, by name")
    text = "of the convolutions to replace (default 2)"
    add("--dimensions", nargs="+", type=int, choices=(1, 2, 3), default=(2,), help=text)
    add_num_classes(parser)
    target = parser.add_mutually_exclusive_group()
    for what in ("parameters", "macs"):
        text = f"propose a variant with at most this share of the {what}, such as 30%%"
        target.add_argument(f"--target-{what}", type=budget, metavar="SHARE", help=text)
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
    if (arguments.target_parameters, arguments.target_macs) != (None, None):
        if arguments.bsconv is not None:
            raise ValueError("a target chooses the form itself, --bsconv goes without one")
        return _propose(arguments, settings)
    classes = arguments.num_classes or usual_classes(arguments.model)
    plan = replacer.plan(build_model(arguments.model, classes))
    if arguments.json:
        print_json(model=arguments.model, **dataclasses.asdict(plan))
    else:
        print(plan)
    return 0


def _propose(arguments: argparse.Namespace, settings: dict[str, Any]) -> int:
    """A table of all forms, with the largest within the target proposed."""
    from ..basics.tables import text_table
    from ..experiments.model_sources import build_model
    from ..pytorch import BSConvS_Replacer, BSConvU_Replacer, ModelProfiler

    replacers: dict[str, Any] = {"dense": None, "BSConv-U": BSConvU_Replacer(**settings)}
    for p in SHARES:
        replacers[f"BSConv-S, p = {p}"] = BSConvS_Replacer(p=Fraction(p), **settings)
    costs: dict[str, dict[str, int]] = {}
    for form, replacer in replacers.items():
        model = build_model(
            arguments.model, arguments.num_classes or usual_classes(arguments.model)
        )
        size = arguments.input_size or usual_size(arguments.model, model)
        profile = ModelProfiler(replacer.apply(model) if replacer else model, (1, *size))
        costs[form] = {"parameters": profile.total_parameter_count, "macs": profile.total_mac_count}
    dense = costs["dense"]
    what = "parameters" if arguments.target_macs is None else "macs"
    target = getattr(arguments, f"target_{what}")
    within = [form for form, cost in costs.items() if cost[what] <= target * dense[what]]
    proposed = max(within, key=lambda form: costs[form][what], default=None)
    rows = []
    for form, cost in costs.items():
        shares = {f"share_of_{name}": cost[name] / dense[name] for name in cost}
        rows.append({"form": form, **cost, **shares, "proposed": form == proposed})
    if arguments.json:
        print_json(model=arguments.model, variants=rows)
        return 0
    header = [name.replace("_", " ") for name in rows[0]]
    lines = []
    for *cells, chosen in (row.values() for row in rows):
        shown: list[Any] = [f"{each:.1%}" if type(each) is float else each for each in cells]
        lines.append([*shown, "yes" if chosen else ""])
    print(text_table(header, lines))
    if proposed is None:
        print(f"none costs {target:.0%} or less")
    print("of trained weights: bsconv project --budget gives each layer a form and rank of its own")
    return 0
