"""The time that layers take in the engine that will run them, form by form."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .._tools.timing import in_turns, medians
from ._costs import DENSE, Form, Geometry
from ._dense import Dense
from ._plans import layer_to_fit

SECONDS = 1.0  # that the rounds of one geometry take
TURN = 0.005  # seconds that a layer runs before the next has its turn
TIMED_IMAGES = 16
Prepare = Callable[..., Callable[[], object]]


@torch.no_grad()
def measured_seconds(
    dense: Dense, tables: Mapping[str, Mapping[Form, Any]], prepare: Prepare | None
) -> tuple[float, dict[str, dict[Form, float]]]:
    """Of the whole dense network, and of each layer in each form of its table.

    ``prepare(module, *inputs)`` returns what runs the module once, in the engine of choice; without
    it, modules run as they are. Layers of one geometry are measured once.
    """
    prepare = prepare or _as_it_is
    inputs = dense.inputs.first(TIMED_IMAGES)
    device = inputs.tensors()[0].device
    whole = prepare(dense.model, *inputs.args, **inputs.kwargs)
    known: dict[Geometry, dict[Form, float]] = defaultdict(dict)
    for name, forms in tables.items():
        geometry, conv = dense.geometry(name), dense.conv(name)
        images = torch.randn(len(inputs), *dense.consumers[name].geometry[0]).to(conv.weight)
        missing = {form for form in forms if form not in known[geometry]}
        runs = {form: prepare(_layer(conv, form), images) for form in sorted(missing)}
        known[geometry] |= medians(in_turns(runs, device, budget=SECONDS, turn=TURN))
    total = medians(in_turns({"": whole}, device, budget=SECONDS, turn=TURN))[""]
    return total, {name: known[dense.geometry(name)] for name in tables}


def _layer(conv: nn.Conv2d, form: Form) -> nn.Module:
    return conv if form == DENSE else layer_to_fit(conv, form)


def _as_it_is(module: nn.Module, *args: Tensor, **kwargs: Any) -> Callable[[], object]:
    return lambda: module(*args, **kwargs)
