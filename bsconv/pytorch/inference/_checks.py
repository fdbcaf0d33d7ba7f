"""What optimize_for_inference can take, and whether outputs are the same."""

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from ...basics.errors import described
from ...engines import ENGINES, difference, dtype_name
from .._tools.model_tree import check_module, tensors_in, watching
from .._tools.numerics import full_float32

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SAME = 1e-4  # of the largest output: rounding, whatever the model
SAME_WHEN_ROUNDED = 1e-3  # at most, and ten times what float32 makes of the model
SAME_WHEN_SHORT = 0.1
SHORT = {torch.bfloat16, torch.float16}


def check_arguments(model: Any, example: Any, dtype: Any) -> None:
    check_module(model)
    if not isinstance(example, Tensor):
        raise TypeError(f"example_input needs to be a tensor, got a {type(example).__name__}")
    if not example.is_floating_point():
        raise ValueError(f"example_input needs floating-point numbers, got {example.dtype}")
    if not example.numel():
        raise ValueError(f"example_input needs at least one image, got {tuple(example.shape)}")
    if dtype not in (None, *DTYPES):
        known = ", ".join(map(dtype_name, DTYPES))
        raise ValueError(f"dtype needs to be None or one of {known}, got {dtype!r}")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ValueError("model needs to be optimised before it becomes TorchScript")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(tensor):
            raise ValueError(f"model needs a size for {name}: call it once, its layers are lazy")
        if tensor.is_meta:
            raise ValueError(f"model needs values for {name}, which is on the meta device")


def selected_engines(engines: Any, compile: Any) -> list[str]:
    """The names of the engines to try, in the order of ``ENGINES``."""
    if compile not in (True, False, "auto"):
        raise ValueError(f"compile needs to be True, False or 'auto', got {compile!r}")
    if compile != "auto" != engines:
        raise ValueError(f"compile needs to be 'auto' where engines is given, got {compile!r}")
    if compile != "auto":
        return ["compiled"] if compile else ["eager"]
    if engines == "auto":
        return list(ENGINES)
    names = [engines] if isinstance(engines, str) else engines
    known = ", ".join(map(repr, ENGINES))
    if not isinstance(names, Collection) or not names or any(n not in list(ENGINES) for n in names):
        raise ValueError(f"engines needs to be 'auto' or some of {known}, got {engines!r}")
    for name in names:
        if why_not := ENGINES[name].missing():
            rule = "engines needs those that are installed"
            raise ValueError(f"{rule}, got {name!r}, which {why_not}")
    return [name for name in ENGINES if name in names]


@full_float32()
def repeatable_outputs(model: nn.Module, example: Tensor) -> list[Tensor]:
    try:
        first = outputs_of(model, example)
    except Exception as error:
        size, said = tuple(example.shape), described(error)
        raise ValueError(f"model does not take example_input of {size}: {said}") from error
    if not first:
        raise ValueError("model returns no floating-point tensor")
    if not difference(outputs_of(model, example), first) <= SAME_WHEN_ROUNDED:
        why = "two calls with example_input differ, so nothing can be said to equal it"
        raise ValueError(f"model is random in eval mode, or its outputs are not finite: {why}")
    return first


def floats_in(output: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(output) if tensor.is_floating_point()]


def outputs_of(network: Any, example: Tensor) -> list[Tensor]:
    """All floating-point tensors that ``network`` returns; it may write into what it takes."""
    return floats_in(network(example.clone()))


def is_rounding(apart: float, network: nn.Module, example: Tensor, dtype: Any = None) -> bool:
    """Whether outputs of ``network``, which computes in ``dtype``, may be ``apart`` by rounding."""
    if apart <= SAME:
        return True
    seen = {dtype, example.dtype}  # and what layers return, in autocast for example
    note = lambda _, __, output: seen.update(one.dtype for one in floats_in(output))  # noqa: E731
    with watching((module, note) for module in network.modules()):
        found = outputs_of(network, example)
    with full_float32():  # TF32, for example, is shorter
        is_short = difference(found, outputs_of(network, example)) > SAME / 10
    if is_short or seen & SHORT:
        return apart <= SAME_WHEN_SHORT
    try:
        exact = outputs_of(copy.deepcopy(network).double(), example.double())
    except Exception:  # of the many that models raise in another dtype
        return False
    return apart <= min(SAME_WHEN_ROUNDED, 10 * difference(found, exact))


@full_float32()
def checked_difference(model: nn.Module, example: Tensor, expected: list[Tensor]) -> float:
    """How far its outputs are from ``expected``; ValueError if by more than rounding."""
    apart = difference(outputs_of(model, example), expected)
    if not is_rounding(apart, model, example):
        apart_by = f"by {apart:.1e} of its largest output, which is more than rounding"
        why = "unless it sorts: then rounding may change the order"
        raise ValueError(f"model cannot be optimised: the result differs from it {apart_by}, {why}")
    return apart
