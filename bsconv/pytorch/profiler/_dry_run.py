"""A run of a model for its shapes alone, after which the model is as it was."""

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Size = tuple[int, ...]
Result = TypeVar("Result")

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid)


def dry_run(
    model: nn.Module,
    sizes: Sequence[Size],
    device: torch.device | None,
    observe: Callable[[nn.Module, list[Tensor]], Result],
) -> Result:
    """``observe(model, inputs)`` in eval mode, without gradients, on zeros of the given sizes.

    It gets a copy on the meta device, which costs neither memory nor arithmetic, and where that
    fails, as it does if the values of tensors decide what is computed, the model itself, with
    inputs on ``device`` (None: the model's). What that raises is raised here.
    """
    tensors = [*model.parameters(), *model.buffers()]
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), None)  # None: the default

    def inputs(device: torch.device) -> list[Tensor]:
        return [torch.zeros(size, dtype=dtype, device=device) for size in sizes]

    with _random_state_kept(tensors), torch.no_grad():
        with contextlib.suppress(Exception):
            return observe(_on_meta(model), inputs(torch.device("meta")))
        if device is None:
            device = tensors[0].device if tensors else torch.get_default_device()
        with _unchanged(model):
            return observe(model, inputs(device))


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy in eval mode, without the weights; what is shared in the model is shared in it."""
    memo: dict[int, Any] = {}  # deepcopy takes from here what it would copy
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(_empty(parameter), parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = _empty(buffer)
    for module in model.modules():  # a dozen empty tables of hooks each, which take the most time
        for table in vars(module).values():
            if type(table) is OrderedDict and not table:
                memo[id(table)] = OrderedDict()
    twin = copy.deepcopy(model, memo)
    for module in twin.modules():
        module.training = False
        # the meta device runs these in Python, in milliseconds each, only to find the same shape
        if "forward" not in vars(module):
            if type(module) in BATCH_NORMS:
                module.forward = partial(_normalised, module)
            elif type(module) in ACTIVATIONS:
                module.forward = _activated
    return twin


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _activated(input: Tensor) -> Tensor:
    return input


def _normalised(norm: Any, input: Tensor) -> Tensor:
    norm._check_input_dim(input)
    if input.shape[1] != norm.num_features:
        raise ValueError  # and the norm itself then says what is wrong
    return input


@contextlib.contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Eval mode; afterwards every mode and buffer is what it was.

    ``eval()`` is not called, as models may do more there than to set ``training``, such as to merge
    weights.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, key, buffer, buffer.clone())
        for module in model.modules()
        for key, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, key, buffer, values in buffers:
            module._buffers[key] = buffer
            # untouched ones are not written to: a pending backward pass may need them as they are
            if not buffer.is_meta and not torch.equal(buffer, values):
                buffer.copy_(values)


@contextlib.contextmanager
def _random_state_kept(tensors: Sequence[Tensor]) -> Iterator[None]:
    devices = {t.device for t in tensors if t.device.type not in ("cpu", "meta")}
    kind = next((device.type for device in devices), "cuda")
    with torch.random.fork_rng(devices=list(devices), device_type=kind):
        yield
