"""The operations of a forward pass in order, whichever modules or functions they are written as."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Operation:
    """One call of a function of PyTorch, or of a layer that is watched as a whole."""

    number: int  # counted from 0 in one forward pass
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    layer: str | None = None  # its name; None for functions

    def run(self) -> Any:
        return self.function(*self.args, **self.kwargs)

    def norm_state(self) -> dict[str, Any]:
        """The arguments of F.batch_norm by name; empty for other operations."""
        if self.function is not F.batch_norm:
            return {}
        bound = inspect.signature(F.batch_norm).bind(*self.args, **self.kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)


Visit = Callable[[Operation], Any]


class _Counting(TorchFunctionMode):
    def __init__(self, visit: Visit) -> None:
        super().__init__()
        self.visit = visit
        self.count = 0
        self.inside = False  # a watched layer, whose own operations do not count

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        return func(*args, **kwargs) if self.inside else self._next(func, args, kwargs)

    def call(self, name: str, forward: Callable[[Tensor], Tensor], input: Tensor) -> Any:
        """What the watched layer of that name computes; its argument may come by keyword."""
        self.inside = True
        try:
            return self._next(forward, (input,), {}, name)
        finally:
            self.inside = False

    def _next(
        self,
        function: Callable[..., Any],
        args: Any,
        kwargs: dict[str, Any],
        layer: str | None = None,
    ) -> Any:
        operation = Operation(self.count, function, args, kwargs, layer)
        self.count += 1
        return self.visit(operation)


@contextmanager
def visiting(layers: Mapping[str, nn.Module], visit: Visit) -> Iterator[None]:
    """Forward passes in here go on with what ``visit`` returns for each operation.

    A call of one of ``layers`` is one operation, whatever it consists of, so that the numbers stay
    the same when another layer takes its place.
    """
    # what torch.compile has compiled runs as it is written
    with torch.compiler.set_stance("force_eager"), _Counting(visit) as mode:
        try:
            for name, layer in layers.items():
                layer.forward = partial(mode.call, name, layer.forward)
            yield
        finally:
            for layer in layers.values():
                vars(layer).pop("forward", None)
