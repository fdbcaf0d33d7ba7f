"""Plans: a form for each layer of a model; and the networks that a projection wrote."""

import importlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from itertools import chain
from typing import Any

from torch import Tensor, nn

from ...basics.errors import needs, one_line
from .._tools.convs import check_sizes
from .._tools.model_tree import check_module, exchange, places
from .._tools.obstacles import why_not_plain
from .._tools.outside import independent_copy
from ..regularization import attach_reg_loss
from .form import Form


def apply_plan(model: nn.Module, plan: Mapping[str, str]) -> nn.Module:
    """Puts a layer of its form in the place of each convolution that ``plan`` names; in place.

    ``plan`` is ``report.plan`` of a projection: "u", "s:CHANNELS" or "cp:BLUEPRINTS" by the names
    of layers. The new layers wait for a state dict. Raises ValueError, before anything changes, for
    a layer that the model lacks or that is not a convolution.

    >>> type(apply_plan(nn.Sequential(nn.Conv2d(16, 32, 3)), {"0": "cp:8"})[0]).__name__
    'BSConvCP'
    """
    check_module(model)
    if not isinstance(plan, Mapping):
        raise ValueError(f"plan needs the forms of layers by their names, got {plan!r}")
    modules = dict[str, Any](model.named_modules())
    forms = {name: Form.parse(text) for name, text in plan.items()}
    for name, (kind, rank) in forms.items():
        conv: Any = modules.get(name)
        dimensions = (2,) if kind == "cp" else (1, 2, 3)
        reason = why_not_plain(conv, dimensions=dimensions) if conv else "the model has none"
        if reason:
            raise ValueError(f"the plan needs a plain convolution at '{name}': {reason}")
        check_sizes(f"layer '{name}'", type(conv), **vars(conv))
        if kind == "s" and rank > conv.in_channels:
            most = f"{conv.in_channels} channels at most"
            raise ValueError(f"the plan needs {most} at '{name}', got '{plan[name]}'")
    return install(model, {name: form.layer(modules[name]) for name, form in forms.items()})


def install(model: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    where = [place for place in places(model, leaves=()) if place.name in layers]
    made = {id(place.module): layers[place.name] for place in where}
    return exchange(model, where, made, attach_reg_loss)


def tied(model: nn.Module) -> set[str]:
    """The names of the modules that share a parameter with another one."""
    own = {name: set(module.parameters(False)) for name, module in model.named_modules()}
    owners = Counter(chain.from_iterable(own.values()))
    return {name for name, found in own.items() if any(owners[one] > 1 for one in found)}


def load_projected(
    model: nn.Module, file: str | os.PathLike[str] | tuple[Mapping[str, str], Mapping[str, Tensor]]
) -> nn.Module:
    """The network that a projection of ``model`` wrote, with its weights; ``model`` stays as it is.

    ``file`` is a safetensors file that `bsconv project` wrote, or a plan (``report.plan``) and a
    state dict. Raises ValueError for a file without a plan, and for one of another model.

    >>> model = nn.Sequential(nn.Conv2d(16, 32, 3))
    >>> small, report = project_pretrained(model)
    >>> again = load_projected(model, (report.plan, small.state_dict()))
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
        raise ImportError(needs("load_projected of a file", error)) from error
    try:
        with safetensors.safe_open(file, framework="pt") as content:
            about = json.loads((content.metadata() or {}).get("bsconv", "{}"))
            state = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{os.fspath(file)} is damaged or not a safetensors file") from error
    if not isinstance(about, dict) or not isinstance(about.get("plan"), dict):
        raise ValueError(f"{os.fspath(file)} needs a plan in its metadata, got none")
    return about["plan"], state
