"""What a replacer would do to a network: its stages and its table of layers before and after."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from bsconv.pytorch.models import get_model
from bsconv.pytorch.plan import Plan
from bsconv.pytorch.replacers import BSConvS_Replacer, BSConvU_Replacer

from ...experiments import plotting
from ._controls import Choice, Control, Words
from ._cost import SHARES
from ._panel import Panel, Values, View, paragraph, table

RULES = {"BSConv-U": "U", "BSConv-S": "S"}
SIZES: dict[str, tuple[int, ...] | None] = {
    "3 x 3 and 5 x 5": (3, 5),
    "3 x 3": (3,),
    "5 x 5": (5,),
    "7 x 7": (7,),
    "all": None,
}
Architectures = Mapping[str, Callable[[], nn.Module]]


def surgery_plan(
    model: nn.Module,
    rule: str,
    p: float = 1 / 4,
    kernel_sizes: tuple[int, ...] | None = (3, 5),
    exclude: str = "",
) -> Plan:
    """The plan of ``BSConvU_Replacer`` (rule "U") or ``BSConvS_Replacer`` ("S") for ``model``.

    ``exclude`` holds names of layers with commas in between; ``*`` and ``?`` are wildcards.
    ValueError for another rule, and for what the replacers refuse.
    """
    names = tuple(name.strip() for name in exclude.split(",") if name.strip())
    if rule not in RULES.values():
        raise ValueError(f"rule needs to be 'U' or 'S', got {rule!r}")
    if rule == "U":
        return BSConvU_Replacer(kernel_sizes, exclude=names).plan(model)
    return BSConvS_Replacer(kernel_sizes, p, exclude=names).plan(model)


def stage_parameters(plan: Plan) -> dict[str, tuple[int, int]]:
    """Parameters of the convolutions before and after, by stage: ``{"layer1": (..., ...)}``.

    A stage is what the names of layers begin with: as few of their parts as tell three stages
    apart, such as ``layer1``, or ``backbone.stage1`` where all layers are in ``backbone``.
    """
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


class _Surgeon:
    title = "model surgeon"

    def __init__(self, architectures: Architectures) -> None:
        self.architectures = architectures
        self._models: dict[str, nn.Module] = {}

    def _model(self, name: str) -> nn.Module:
        if name not in self._models:
            with torch.device("meta"):  # shapes are enough
                self._models[name] = self.architectures[name]()
        return self._models[name]

    def controls(self, values: Values) -> dict[str, Control]:
        names = list(self.architectures)
        sizes = {name: name for name in SIZES}
        return {
            "architecture": Choice("architecture", {name: name for name in names}, names[0]),
            "rule": Choice("layers become", RULES, "U", buttons=True),
            "p": Choice("p, share of channels in BSConv-S", SHARES, 1 / 4),
            "kernel_sizes": Choice("kernel sizes (pixels)", sizes, next(iter(sizes))),
            "exclude": Words("layers to exclude", hint="layer1.*, *.conv2"),
        }

    def view(self, values: Values) -> View:
        model = self._model(values["architecture"])
        sizes = SIZES[values["kernel_sizes"]]
        try:
            plan = surgery_plan(model, values["rule"], values["p"], sizes, values["exclude"])
        except ValueError as error:
            return View(f"{values['architecture']}: no plan.", paragraph(str(error)))
        rule = "BSConv-U" if values["rule"] == "U" else "BSConv-S"
        summary = f"{values['architecture']} to {rule}: {plan.summary}."
        stages = stage_parameters(plan)

        def draw() -> plotting.Figure:
            before, after = zip(*stages.values(), strict=True)
            series = {"before": before, f"after, as {rule}": after}
            title = f"{values['architecture']}: its convolutions, stage by stage"
            return plotting.bar_rows(list(stages), series, xlabel="parameters", title=title)

        return View(summary, table(plan.header, plan._table_rows()), draw if stages else None)


def model_surgeon(architectures: Architectures | None = None) -> Panel:
    """Controls "architecture", "rule", "p", "kernel_sizes" and "exclude": the replacer's plan.

    ``architectures`` are functions that make a model, by name; by default, some of this package's.
    They are called on the meta device, once each. ValueError if there are none.
    """
    if architectures is None:
        names = ("cifar_resnet20", "cifar_preresnet20", "cifar_wrn16_4", "cifar_mobilenetv2_w1")
        architectures = {name: partial(get_model, name, 10) for name in names}
    if not architectures:
        raise ValueError("architectures needs at least one, got none")
    return Panel(_Surgeon(architectures))
