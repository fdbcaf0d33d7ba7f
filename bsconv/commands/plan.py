"""Say which layers of a model BSConv would replace, and what that saves; nothing is trained.

With a target, the variants are compared instead, and the largest within it is proposed.
"""

import argparse
import dataclasses
from fractions import Fraction
from typing import Any

from . import _arguments as shared
from ._models import untrained
from ._output import add_json, print_json

SHARES = ("1/2", "1/3", "1/4", "1/6", "1/8", "1/16")  # of BSConv-S
HELP = "say which layers BSConv would replace"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help=shared.MODEL_HELP)
    shared.add_replacement(parser)
    add("--exclude", nargs="+", default=(), metavar="LAYER", help="layers to keep, by name")
    text = "of the convolutions to replace (default 2)"
    add("--dimensions", nargs="+", type=int, choices=(1, 2, 3), default=(2,), help=text)
    shared.add_num_classes(parser)
    target = parser.add_mutually_exclusive_group()
    for what in ("parameters", "macs"):
        text = f"propose a variant with at most this share of the {what}, such as 30%%"
        target.add_argument(f"--target-{what}", type=shared.budget, metavar="SHARE", help=text)
    shared.add_input_size(parser)
    add_json(parser, "model, layers, parameters_before, parameters_after; or model, variants")


def run(arguments: argparse.Namespace) -> None:
    target = (arguments.target_parameters, arguments.target_macs) != (None, None)
    shared.only_with(arguments.bsconv == "s", "--bsconv s", arguments, "p")
    shared.only_with(target, "--target-parameters or --target-macs", arguments, "input_size")

    from ..pytorch import BSConvS_Replacer, BSConvU_Replacer

    settings: dict[str, Any] = {"with_bn": bool(arguments.with_bn)}
    settings |= {name: getattr(arguments, name) for name in ("exclude", "dimensions")}
    replacer: BSConvS_Replacer | BSConvU_Replacer = BSConvU_Replacer(**settings)
    if arguments.bsconv == "s":
        replacer = BSConvS_Replacer(p=0.25 if arguments.p is None else arguments.p, **settings)
    if target:
        if arguments.bsconv is not None:
            raise ValueError("--bsconv does not go with a target, which chooses the form")
        forms: dict[str, Any] = {"dense": None, "BSConv-U": replacer}
        for p in SHARES:
            forms[f"BSConv-S, p = {p}"] = BSConvS_Replacer(p=Fraction(p), **settings)
        _propose(arguments, forms)
        return
    model, _ = untrained(arguments)
    plan = replacer.plan(model)
    if arguments.json:
        print_json(model=arguments.model, **dataclasses.asdict(plan))
    else:
        print(plan)


def _propose(arguments: argparse.Namespace, forms: dict[str, Any]) -> None:
    """A table of the ``forms``, by their replacers, with the largest within the target proposed."""
    from ..basics.tables import text_table
    from ..pytorch import ModelProfiler

    rows: list[dict[str, Any]] = []
    for form, replacer in forms.items():
        model, size = untrained(arguments)
        profile = ModelProfiler(replacer.apply(model) if replacer else model, size)
        row = {"parameters": profile.total_parameter_count, "macs": profile.total_mac_count}
        dense = rows[0] if rows else row
        shares = {f"share_of_{name}": row[name] / dense[name] for name in row}
        rows.append({"form": form, **row, **shares})
    what = "parameters" if arguments.target_macs is None else "macs"
    share, target = f"share_of_{what}", getattr(arguments, f"target_{what}")
    within = [row for row in rows if row[share] <= target]
    proposed = max(within, key=lambda row: row[share], default=None)
    if arguments.json:
        variants = [{**row, "proposed": row is proposed} for row in rows]
        print_json(model=arguments.model, variants=variants)
        return
    header = [name.replace("_", " ") for name in rows[0]]
    lines = [[f"{v:.1%}" if type(v) is float else v for v in row.values()] for row in rows]
    print(text_table(header, lines))
    limit = f"{target:.1%}".replace(".0%", "%")
    chosen = f"the largest within {limit}" if proposed else f"none costs {limit} or less"
    print(f"{proposed['form']} is {chosen}" if proposed else chosen)
    print("of trained weights: bsconv project --budget gives each layer a form and rank of its own")
