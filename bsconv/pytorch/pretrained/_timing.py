"""The time that layers take in the engine that will run them, form by form."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ._costs import DENSE, Form, Geometry
from ._dense import Dense
from ._inputs import Inputs
from ._plans import closest_layer, new_layer

SECONDS = 0.3  # that the rounds of one layer or network take
Prepare = Callable[[nn.Module, Tensor], Callable[[], object]]


@torch.no_grad()
def seconds_of_network(
    dense: Dense,
    forms: Mapping[str, Mapping[Form, Any]],
    geometries: Mapping[str, Geometry],
    inputs: Inputs,
    prepare: Prepare | None,
) -> tuple[float, dict[tuple[Geometry, Form], float]]:
    raise NotImplementedError
