"""The forms that a layer can have, what they cost, and plans: a form for each layer of a model."""

import importlib
import json
import os
import re
from collections.abc import Mapping
from fractions import Fraction
from math import prod
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from ...basics.errors import one_line
from .._tools.convs import CONVS, Conv
from .._tools.model_tree import check_module, exchange, places
from .._tools.outside import independent_copy
from ..modules import BSConvCP, BSConvS, BSConvU
from ..regularization import attach_reg_loss

CLASSES: dict[str, Any] = {"u": BSConvU, "s": BSConvS, "cp": BSConvCP}


class Form(NamedTuple):
    """What a layer is: "dense", "u", "s" or "cp"; ``rank``: the middle channels of "s" and "cp"."""

    kind: str
    rank: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.rank}" if self.rank else self.kind

    @classmethod
    def parse(cls, text: str) -> "Form":
        if not re.fullmatch(r"dense|u|(s|cp):0*[1-9][0-9]*", str(text)):
            known = "'dense', 'u', 's:CHANNELS' or 'cp:BLUEPRINTS'"
            raise ValueError(f"a form needs to be {known}, got {text!r}")
        kind, _, rank = text.partition(":")
        return cls(kind, int(rank or 0))

    @classmethod
    def of(cls, layer: nn.Module) -> "Form":
        kind = next((kind for kind, one in CLASSES.items() if isinstance(layer, one)), "dense")
        return cls(kind, cast(Any, layer).pw1.out_channels if kind in ("s", "cp") else 0)

    def layer(self, conv: Conv) -> nn.Module:
        """A layer of this form in place of ``conv``, without weights; ``conv`` itself if dense."""
        if self.kind == "dense":
            return conv
        options: dict[str, Any] = {}
        if self.kind == "s":
            options = {"p": Fraction(self.rank, conv.in_channels), "min_mid_channels": 1}
        elif self.kind == "cp":
            options = {"blueprints": self.rank}
        new: nn.Module = CLASSES[self.kind].like(conv, empty=True, **options)
        return new

    def macs(self, conv: Conv, before: int = 1, behind: int = 1) -> int:
        """For so many places of input and output, in place of ``conv``; for one: the weights."""
        inputs, outputs, kernel = conv.in_channels, conv.out_channels, prod(conv.kernel_size)
        depthwise = outputs * kernel * behind
        return {
            "dense": inputs * depthwise,
            "u": inputs * outputs * before + depthwise,
            "s": self.rank * (inputs + outputs) * before + depthwise,
            "cp": self.rank * (inputs * before + (kernel + outputs) * behind),
        }[self.kind]


DENSE = Form("dense")


def apply_plan(model: nn.Module, plan: Mapping[str, str]) -> nn.Module:
    """Puts a layer of its form in the place of each convolution that ``plan`` names; in place.

    ``plan`` is ``report.plan`` of a projection: "u", "s:CHANNELS" or "cp:BLUEPRINTS" by the names
    of layers. The new layers wait for a state dict. Raises ValueError, before anything changes, for
    a layer that the model lacks or that is no convolution.
    """
    check_module(model)
    if not isinstance(plan, Mapping):
        raise ValueError(f"plan needs the forms of layers by their names, got {plan!r}")
    modules = dict(model.named_modules())
    forms = {name: Form.parse(text) for name, text in plan.items()}
    for name in forms:
        if type(modules.get(name)) not in CONVS:
            found = type(modules[name]).__name__ if name in modules else "none"
            raise ValueError(f"the plan needs a convolution at '{name}', got {found}")
    return install(model, {name: form.layer(modules[name]) for name, form in forms.items()})


def install(model: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    where = [place for place in places(model, leaves=()) if place.name in layers]
    model = exchange(model, where, {id(place.module): layers[place.name] for place in where})
    if any(isinstance(layer, BSConvS) for layer in layers.values()):
        attach_reg_loss(model)
    return model


def load_projected(
    model: nn.Module, file: str | os.PathLike[str] | tuple[Mapping[str, str], Mapping[str, Tensor]]
) -> nn.Module:
    """The network that a projection of ``model`` wrote, with its weights; ``model`` stays as it is.

    ``file`` is a safetensors file that `bsconv project` wrote, or a plan (``report.plan``) and a
    state dict. Raises ValueError for a file without a plan, and for one of another model.
    """
    is_pair = isinstance(file, tuple) and len(file) == 2
    if not is_pair and not isinstance(file, (str, os.PathLike)):
        raise TypeError(f"file needs a path, or a plan and a state dict, got {file!r}")
    check_module(model)
    plan, state = file if isinstance(file, tuple) else _read(file)
    try:
        new = apply_plan(independent_copy(model), plan)
        new.load_state_dict(state)
    except (RuntimeError, TypeError, ValueError) as error:
        what = "the state dict" if isinstance(file, tuple) else os.fspath(file)
        said = f"{what} needs to be a projection of this model: {one_line(error)}"
        raise ValueError(said) from error
    return new


def _read(file: str | os.PathLike[str]) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        safetensors: Any = importlib.import_module("safetensors")
    except ImportError as error:
        said = "load_projected needs the package safetensors: pip install safetensors"
        raise ImportError(said) from error
    try:
        with safetensors.safe_open(file, framework="pt") as content:
            about = json.loads((content.metadata() or {}).get("bsconv", "{}"))
            state = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{os.fspath(file)} is damaged or not a safetensors file") from error
    if not isinstance(about, dict) or not isinstance(about.get("plan"), dict):
        raise ValueError(f"{os.fspath(file)} needs a plan in its metadata, got none")
    return about["plan"], state
