"""What a replacer would do to a network: its stages and its table of layers before and after."""

import functools
from collections.abc import Callable, Mapping

import torch
from torch import nn

from bsconv.pytorch.models import get_model
from bsconv.pytorch.plan import Plan
from bsconv.pytorch.replacers import BSConvS_Replacer, BSConvU_Replacer

from ...experiments import plotting
from ._cost import SHARES
from ._panel import Panel, View, buttons, choice, paragraph, table, words

SIZES: dict[str, tuple[int, ...] | None] = {
    "3 x 3 and 5 x 5": (3, 5),
    **{f"{side} x {side}": (side,) for side in (3, 5, 7)},
    "all": None,
}


def model_surgeon(architectures: Mapping[str, Callable[[], nn.Module]] | None = None) -> Panel:
    """Controls "architecture", "rule", "p", "kernel_sizes" and "exclude": the replacer's plan.

    ``architectures`` are functions that make a model, by name; by default, some of this package's.
    They are called on the meta device, once each. ValueError if there are none.
    """
    if architectures is None:
        names = ("cifar_resnet20", "cifar_preresnet20", "cifar_wrn16_4", "cifar_mobilenetv2_w1")
        architectures = {name: functools.partial(get_model, name, 10) for name in names}
    if not architectures:
        raise ValueError("architectures needs at least one, got none")
    first = next(iter(architectures))

    @functools.cache
    def model_of(architecture: str) -> nn.Module:
        with torch.device("meta"):  # shapes are enough
            return architectures[architecture]()

    def view(architecture: str, rule: str, p: float, kernel_sizes: str, exclude: str) -> View:
        names = tuple(name.strip() for name in exclude.split(",") if name.strip())
        sizes = SIZES[kernel_sizes]
        try:
            u, s = BSConvU_Replacer(sizes, exclude=names), BSConvS_Replacer(sizes, p, exclude=names)
            plan = (u if rule == "U" else s).plan(model_of(architecture))
        except ValueError as error:
            return View(f"{architecture}: no plan.", paragraph(str(error)))
        stages = stage_parameters(plan)

        def draw() -> plotting.Figure:
            before, after = zip(*stages.values(), strict=True)
            series = {"before": before, f"after, as BSConv-{rule}": after}
            title = f"{architecture}: its convolutions, stage by stage"
            return plotting.bar_rows(list(stages), series, xlabel="parameters", title=title)

        summary = f"{architecture} to BSConv-{rule}: {plan.summary}."
        return View(summary, table(plan.header, plan._table_rows()), draw if stages else None)

    controls = {
        "architecture": choice("architecture", {name: name for name in architectures}, first),
        "rule": buttons("layers become", {"BSConv-U": "U", "BSConv-S": "S"}, "U"),
        "p": choice("p, share of channels in BSConv-S", SHARES, 1 / 4),
        "kernel_sizes": choice("kernel sizes (pixels)", {n: n for n in SIZES}, "3 x 3 and 5 x 5"),
        "exclude": words("layers to exclude", hint="layer1.*, *.conv2"),
    }
    return Panel("model surgeon", controls, view)


def stage_parameters(plan: Plan) -> dict[str, tuple[int, int]]:
    """By what names begin with, such as ``layer1``: as few parts as tell three stages apart."""
    names = [layer.name.split(".") for layer in plan.layers]
    depth = 1
    while depth < max(map(len, names), default=1) and len({tuple(n[:depth]) for n in names}) < 3:
        depth += 1
    stages: dict[str, tuple[int, int]] = {}
    for layer, parts in zip(plan.layers, names, strict=True):
        stage = ".".join(parts[:depth]) or "(root)"
        before, after = stages.get(stage, (0, 0))
        stages[stage] = before + layer.parameters_before, after + layer.parameters_after
    return stages
