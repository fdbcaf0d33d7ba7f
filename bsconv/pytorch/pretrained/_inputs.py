"""What a model is called with, made from a tensor, a loader or batches of any form."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only

from ...basics.errors import one_line
from .._tools.convs import is_size
from .._tools.model_tree import evaluating, tensors_in

LIMIT = 1000  # images that are taken from an iterable
Images = Tensor | Iterable[Any]


def check_positive(**sizes: int | None) -> None:
    """Raises ValueError that names the argument; ``positions`` may be None."""
    for name, number in sizes.items():
        if not is_size(number) and (name, number) != ("positions", None):
            raise ValueError(f"{name} needs to be at least 1, got {name}={number!r}")


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call of a model; all their tensors hold as many images."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return next(map(len, self.tensors()), 0)

    def tensors(self) -> list[Tensor]:
        return list(tensors_in((self.args, self.kwargs)))

    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the tensors of one image."""
        return tuple(tuple(tensor.shape[1:]) for tensor in self.tensors())

    def map(self, change: Callable[[Tensor], Any]) -> "Inputs":
        return Inputs(*tree_map_only(Tensor, change, (self.args, self.kwargs)))

    def first(self, count: int) -> "Inputs":
        return self.map(itemgetter(slice(count)))

    def split(self, size: int) -> Iterator["Inputs"]:
        for start in range(0, len(self), size):
            yield self.map(itemgetter(slice(start, start + size)))

    def with_derivatives(self) -> "Inputs":
        return self.map(lambda tensor: tensor.clone().detach().requires_grad_())

    def run(self, model: nn.Module) -> Any:
        copies = self.map(torch.clone)  # models may write into what they take
        return model(*copies.args, **copies.kwargs)


def read_inputs(model: nn.Module, images: Images, limit: int) -> Inputs:
    """All images of a tensor, or the first ``limit`` of an iterable of batches, as one batch.

    Raises ValueError unless ``model`` computes something from such images.
    """
    if not isinstance(images, Iterable):
        raise ValueError(f"images needs a tensor or an iterable of batches, got {images!r}")
    found = Inputs((images,)) if isinstance(images, Tensor) else _joined(images, limit)
    for tensor in found.tensors():
        if not tensor.dim() or not tensor.numel() or not tensor.is_floating_point():
            got = f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
            raise ValueError(f"images needs floats of shape (B, ...), at least one image, {got}")
        if not tensor.isfinite().all():
            raise ValueError("images needs finite numbers, got NaN or infinity among them")
    try:
        with evaluating(model):
            found.first(2).run(model)  # one alone may pass for an image without a batch
    except (RuntimeError, TypeError, ValueError) as error:
        got = f"{' and '.join(map(str, found.shapes()))} ({one_line(error)})"
        raise ValueError(f"images needs inputs that the model takes, got {got}") from error
    return found


def _joined(batches: Iterable[Any], limit: int) -> Inputs:
    parts: list[Inputs] = []
    for batch in batches:
        parts.append(_arguments(batch))
        if sum(map(len, parts)) >= limit:
            break
    if not any(parts):
        raise ValueError("images needs at least one batch of images, got none")
    if len(shapes := {part.shapes() for part in parts}) > 1:
        one, other = sorted(shapes)[:2]
        raise ValueError(f"images needs batches of one shape, got {one} and {other}")

    def joined(*values: Any) -> Any:
        return torch.cat(values) if isinstance(values[0], Tensor) else values[0]

    return Inputs(*tree_map(joined, *((part.args, part.kwargs) for part in parts))).first(limit)


def _arguments(batch: Any) -> Inputs:
    if isinstance(batch, (tuple, list)) and batch:
        batch = batch[0]
    if isinstance(batch, Mapping):
        found = Inputs(kwargs=dict(batch))
    else:
        found = Inputs(tuple(batch) if isinstance(batch, (tuple, list)) else (batch,))
    if not found.tensors():
        raise ValueError(f"images needs batches of tensors, got {type(batch).__name__}")
    return found


def check_finite(where: str, *tensors: Tensor) -> None:
    if not all(tensor.isfinite().all() for tensor in tensors):
        rule = "images needs numbers for which the model stays finite"
        raise ValueError(f"{rule}, got NaN or infinity at {where}")
