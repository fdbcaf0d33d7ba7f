"""A run of a model for its shapes alone, after which the model is as it was."""

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from .._tools.model_tree import MODULE_STATE, evaluating
from .._tools.outside import apart_from, independent_copy
from ._costs import Call, Counter, count

META = torch.device("meta")
TABLES = {dict, OrderedDict, set}
ACTIVATIONS = {F.relu, F.relu6, F.hardtanh, F.hardswish, F.hardsigmoid}


def dry_run(
    model: nn.Module, given: list[tuple[int, ...]] | Call, device: torch.device | None
) -> list[Counter]:
    """Counts on the meta device or, where values decide what is computed, in the model itself."""
    own = (chain(m._parameters.values(), m._buffers.values()) for m in model.modules())
    tensors = [tensor for tensor in chain.from_iterable(own) if tensor is not None]
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), None)  # None: the default

    def call(on: torch.device | None) -> Call:
        if isinstance(given, tuple):
            copied = lambda tensor: tensor.to(on or tensor.device, copy=True)  # noqa: E731
            return tree_map_only(Tensor, copied, given)
        place = on or (tensors[0].device if tensors else torch.get_default_device())
        return tuple(torch.zeros(size, dtype=dtype, device=place) for size in given), {}

    devices = {t.device for t in tensors if t.device.type not in ("cpu", "meta")}
    kind = next((device.type for device in devices), "cuda")
    with torch.random.fork_rng(devices=list(devices), device_type=kind):
        with contextlib.suppress(Exception), apart_from(model), _on_meta(model, tensors) as twin:
            return count(twin, call(META), _Shapes())
        with evaluating(model):
            return count(model, call(device), _buffers_kept(model))


def _on_meta(model: nn.Module, tensors: Sequence[Tensor]) -> Any:
    """A copy in eval mode without the weights; what is shared in the model is shared in it."""
    # deepcopy takes from here what it would copy; what each module has takes most of the time
    memo: dict[int, Any] = {id(one): one for one in (*MODULE_STATE, None, True, False)}
    for tensor in tensors:
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    for module in model.modules():
        for table in vars(module).values():
            if type(table) in TABLES and not table:
                memo[id(table)] = type(table)()
    return evaluating(independent_copy(model, memo))


class _Shapes(TorchFunctionMode):
    """Of what keeps the shape, the input is the output: the meta device runs it in milliseconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        normed = func is F.batch_norm and args[1] is not None
        if func in ACTIVATIONS or (normed and args[0].shape[1:2] == args[1].shape):
            return args[0].detach()
        return func(*args, **(kwargs or {}))


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
