"""A run of a model for its shapes alone, after which the model is as it was."""

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from .._tools.model_tree import evaluating
from .._tools.outside import apart_from, independent_copy
from ._costs import Call, Counter, count

ACTIVATIONS = (F.relu, F.relu6, F.hardtanh, F.hardswish, F.hardsigmoid)


def dry_run(
    model: nn.Module, given: list[tuple[int, ...]] | Call, device: torch.device | None
) -> list[Counter]:
    """Counts on the meta device or, where values decide what is computed, in the model itself."""
    tensors = [*model.parameters(), *model.buffers()]
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), None)  # None: the default

    def call(on: torch.device | None) -> Call:
        if isinstance(given, tuple):
            copied = lambda tensor: tensor.to(on or tensor.device, copy=True)  # noqa: E731
            return tree_map_only(Tensor, copied, given)
        place = on or (tensors[0].device if tensors else torch.get_default_device())
        return tuple(torch.zeros(size, dtype=dtype, device=place) for size in given), {}

    with _random_state_kept(tensors):
        alone = apart_from(model)
        with contextlib.suppress(Exception), evaluating(_on_meta(model)) as twin, alone, _Shapes():
            return count(twin, call(torch.device("meta")))
        with _buffers_kept(model), evaluating(model):
            return count(model, call(device))


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy without the weights; what is shared in the model is shared in it."""
    memo: dict[int, Any] = {}  # deepcopy takes from here what it would copy
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(_empty(parameter), parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = _empty(buffer)
    for module in model.modules():  # their dozen empty tables each would take most of the time
        for table in vars(module).values():
            if type(table) in (dict, OrderedDict, set) and not table:
                memo[id(table)] = type(table)()
    return independent_copy(model, memo)


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


class _Shapes(TorchFunctionMode):
    """Of what keeps the shape, the input is the output: the meta device runs it in milliseconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ACTIVATIONS or (func is F.batch_norm and _fits(*args[:2])):
            return args[0].detach()
        return func(*args, **(kwargs or {}))


def _fits(images: Tensor, running_mean: Tensor | None) -> bool:
    return running_mean is not None and images.shape[1:2] == running_mean.shape


@contextlib.contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards every buffer is what it was."""
    tables = [(module, dict(module._buffers)) for module in model.modules()]
    values = {buffer: buffer.clone() for buffer in model.buffers()}
    try:
        yield
    finally:
        for module, table in tables:
            module._buffers.update(table)
        for buffer, before in values.items():
            # untouched ones are not written to: a pending backward pass may need them as they are
            if not buffer.is_meta and not torch.equal(buffer, before):
                buffer.copy_(before)


@contextlib.contextmanager
def _random_state_kept(tensors: Sequence[Tensor]) -> Iterator[None]:
    devices = {t.device for t in tensors if t.device.type not in ("cpu", "meta")}
    kind = next((device.type for device in devices), "cuda")
    with torch.random.fork_rng(devices=list(devices), device_type=kind):
        yield
