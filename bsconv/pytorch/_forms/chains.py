"""What is computed of a layer's output alone, place by place: its activation."""

from collections.abc import Callable, Hashable, Iterable, Mapping

import torch
from torch import Tensor

from .patches import rectifies

PLACES = 50  # of each map, on which operations are tried
LONGEST = 12  # steps of an activation
Activation = Callable[[Tensor], Tensor]


class Chain:
    """What is computed of one value alone, place by place, however it is written."""

    def __init__(self, number: Hashable, maps: Tensor) -> None:
        self.start, self.shape, self.rows = value_of(maps), maps.shape, _rows(maps)
        self.functions: dict[Hashable, Activation] = {self.start: lambda x: x}  # by their values
        self.numbers = [number]  # of their operations

    def add(self, number: Hashable, function: Activation, output: Tensor) -> bool:
        """Whether an operation computes of a few places what it computes of maps."""
        alike = torch.allclose(function(self.rows), _rows(output), 1e-3, 1e-5)
        if alike := alike and output.shape == self.shape and len(self.numbers) < LONGEST:
            self.functions[value_of(output)] = function
            self.numbers.append(number)
        return alike

    def is_sum(self, function: Activation) -> bool:
        """Whether it adds what does not depend on the start."""
        size = 10 * max(1.0, float(self.rows.std()))
        generator = torch.Generator().manual_seed(0)
        one, other = torch.randn(2, *self.shape, generator=generator).to(self.rows) * size
        change = function(one).float() - function(other).float()
        return torch.allclose(change, (one - other).float(), rtol=1e-3, atol=1e-4 * size)

    def activation(self, users: Mapping[Hashable, Iterable[Hashable]]) -> Activation | None:
        """The first step that rectifies, if nothing else uses what leads to it."""
        used, numbers = set[Hashable](), set[Hashable]()
        for number, (value, function) in zip(self.numbers, self.functions.items(), strict=True):
            numbers.add(number)
            if used <= numbers and rectifies(function, self.rows):
                return function
            used.update(users[value])
        return None


def value_of(tensor: Tensor) -> Hashable:
    """What tells values apart: the node of autograd's graph, new whenever a tensor is written."""
    return tensor.grad_fn or tensor


def _rows(maps: Tensor) -> Tensor:
    """Channels of a few places of maps (B, N, ...), as (R, N, 1, 1)."""
    flat = maps.detach().reshape(*maps.shape[:2], -1)
    places = torch.linspace(0, flat.shape[2] - 1, PLACES, device=maps.device).long()
    return flat[:, :, places].movedim(2, 0).flatten(0, 1)[:, :, None, None]
