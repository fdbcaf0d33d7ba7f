"""The module that optimize_for_inference returns."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ._report import InferenceReport

Nested = Any  # a tensor, or tuples, lists and dictionaries of such


class Network(nn.Module):
    """A model behind the conversion of its input to ``dtype`` and the memory format, and back."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, channels_last: bool) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.channels_last = channels_last

    def forward(self, input: Tensor) -> Nested:
        converted = input.to(self.dtype)
        if self.channels_last:
            converted = converted.contiguous(memory_format=torch.channels_last)
        return _converted(self.model(converted), input.dtype)


class OptimizedModel(nn.Module):
    """A model for inference alone: no gradients, no training mode; ``report`` says what it is.

    Where it was compiled, that is for inputs of the example's shape, dtype and device; others are
    computed by the same layers uncompiled. ``network`` holds these. Copies and pickles have no
    compiled code: they compile anew in their first call, or do without where that is not possible.
    """

    report: InferenceReport

    def __init__(self, network: Network, example: Tensor) -> None:
        super().__init__()
        self.network = network
        self._situation = _situation(example)
        self._compile = False
        self._compiled: Callable[[Tensor], Nested] | None = None
        self.eval()

    def forward(self, input: Tensor) -> Nested:
        """What the original computes in eval mode, in its input's dtype and without gradients."""
        # compiled code is bound to such modes: one and the same whatever the caller's are
        with torch.inference_mode(False), torch.no_grad():
            if not self._compile or _situation(input) != self._situation:
                return self.network(input)
            if self._compiled is None:
                self._compiled_or_not(input)
            return self.network(input) if self._compiled is None else self._compiled(input)

    @property
    def compiles(self) -> bool:
        """Whether inputs like the example go through torch.compile."""
        return self._compile

    def train(self, mode: bool = True) -> "OptimizedModel":
        """Raises ValueError for training mode."""
        if mode:
            raise ValueError(
                "an optimised model cannot be trained: BatchNorms are part of its weights; "
                "train the model it was made from"
            )
        return super().train(mode)

    def set_compiled(self, compiled: Callable[[Tensor], Nested] | None) -> None:
        # not as a submodule: its parameters would be there twice
        self.__dict__["_compiled"] = compiled
        self._compile = compiled is not None

    def _compiled_or_not(self, input: Tensor) -> None:
        try:
            compiled = compiled_for(self.network, input)
        except Exception:  # of the many that compilers raise
            compiled = None
        self.set_compiled(compiled)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}


@torch.no_grad()
def compiled_for(network: Network, example: Tensor) -> Callable[[Tensor], Nested]:
    """``network`` through torch.compile, with its weights as constants; compiled when returned.

    Raises whatever the compiler does, and what running it does.
    """
    from torch._dynamo import config  # takes a second to import

    options: dict[str, Any] | None = {"freezing": True} if example.device.type == "cpu" else None
    compiled = cast(
        Callable[[Tensor], Nested], torch.compile(network, dynamic=False, options=options)
    )
    # by itself, torch.compile stops after eight networks, since they share the code of Network
    with config.patch(recompile_limit=1000, accumulated_recompile_limit=1000):
        compiled(example)
    return compiled


def _converted(output: Nested, dtype: torch.dtype) -> Nested:
    if isinstance(output, Tensor):
        return output.to(dtype) if output.is_floating_point() else output
    if isinstance(output, dict):
        return type(output)((key, _converted(value, dtype)) for key, value in output.items())
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*(_converted(value, dtype) for value in output))
    if isinstance(output, (tuple, list)):
        return type(output)(_converted(value, dtype) for value in output)
    return output


def _situation(input: Tensor) -> tuple[Any, ...]:
    return tuple(input.shape), input.dtype, input.device
