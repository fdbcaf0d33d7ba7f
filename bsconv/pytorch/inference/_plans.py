"""The fewer convolutions by which BSConv layers can be computed once they are trained."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from .._tools.convs import CONVS, BatchNorm, Conv, memory_format_of, pads_with_zeros, with_ones
from .._tools.joining import convolution, exact_steps, is_depthwise, joined
from .._tools.model_tree import check_module, exchange, places
from .._tools.outside import independent_copy
from ..modules import BLUEPRINT_LAYERS
from ._folding import is_fixed, is_unmodified

FACTORED = "factored"


def collapse(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in which each BSConv layer is the one dense convolution that equals it.

    Layers that equal none stay as they are, and one warning names them with the reason: those with
    a BatchNorm in training mode, or before a zero-padded depthwise convolution
    (:meth:`BSConvU.to_conv`), those with hooks or other modules in them, and subclasses, which
    may compute something else. Warns as well if there is no BSConv layer. Raises ValueError for
    models of which there is no independent copy.

    >>> type(collapse(BSConvU(16, 32, 3)))
    <class 'torch.nn.modules.conv.Conv2d'>
    """
    check_module(model)
    twin = independent_copy(model)
    everywhere = places(twin, BLUEPRINT_LAYERS)
    found = [one for one in everywhere if isinstance(one.module, BLUEPRINT_LAYERS)]
    dense: dict[int, nn.Module] = {}
    refused: list[str] = []
    for place in found:
        layer: Any = place.module
        try:
            if not is_unmodified(layer):
                others = "hooks or other modules than plain convolutions"
                raise ValueError(f"it is a subclass, or holds {others}")
            dense[id(layer)] = layer.to_conv()
        except ValueError as error:
            refused.append(f"{place.name or '(root)'}: {error}")
    if not found:
        warnings.warn("there is no BSConv layer", stacklevel=2)
    if refused:
        warnings.warn(f"layers that stay as they are: {'; '.join(refused)}", stacklevel=2)
    return exchange(twin, [place for place in found if id(place.module) in dense], dense)


class ShiftedConv(nn.Module):
    """A convolution plus what a shift of the channels, before zero padding, adds to its output.

    That is less at the border than inside, and the same for all images.
    """

    shift: Tensor

    def __init__(self, conv: Conv, spread: Conv, shift: Tensor) -> None:
        super().__init__()
        self.conv, self.spread = conv, spread
        self.register_buffer("shift", shift)

    def forward(self, input: Tensor) -> Tensor:
        flat = with_ones(self.shift, input.dim() - 1).expand(1, -1, *input.shape[2:])
        return cast(Tensor, self.conv(input)) + cast(Tensor, self.spread(flat))


def _joined(first: Conv, second: Conv) -> nn.Module:
    """A ShiftedConv where ``first`` shifts channels that ``second`` pads with zeros."""
    if first.bias is None or not first.bias.any() or not pads_with_zeros(second):
        return joined(first, second)
    plain, spread = (convolution(one, one.weight, None, one.groups) for one in (first, second))
    return ShiftedConv(joined(plain, second), spread, first.bias)


def layer_plans(layer: nn.Module) -> dict[str, nn.Module]:
    """What computes the same as a BSConv ``layer`` in eval mode, by the plan; empty if unsure."""
    norms = [part for part in layer.children() if isinstance(part, BatchNorm)]
    if not is_unmodified(layer) or not all(map(is_fixed, norms)):
        return {}
    steps = exact_steps(layer.children())
    plans: dict[str, list[nn.Module]] = {FACTORED: list(steps)}
    if len(steps) == 3:
        first, second, third = steps
        plans["joined"] = [_joined(first, second), third]
        plans["narrow"] = [first, _joined(second, third)]
    pairs = (pair for pair in plans.values() if len(pair) == 2)
    plain = next(pair for pair in pairs if all(isinstance(part, Conv) for part in pair))
    plans["merged"] = [_joined(*cast(list[Conv], plain))]
    return {name: _as_in(layer, parts) for name, parts in plans.items()}


def _as_in(layer: nn.Module, parts: list[nn.Module]) -> nn.Module:
    """The parts with weights of their own, in the dtype and the memory format of ``layer``."""
    last: Any = list(layer.children())[-1]
    plan = copy.deepcopy(parts[0] if len(parts) == 1 else nn.Sequential(*parts))
    plan.to(last.weight.dtype).to(memory_format=memory_format_of(last.weight))
    return plan.requires_grad_(False).eval()


def padded_plans(plans: Mapping[str, nn.Module], grids: Sequence[int]) -> dict[str, nn.Module]:
    """Plans with zero channels added between their convolutions, up to multiples of each grid."""
    found: dict[str, nn.Module] = {}
    for name in (FACTORED, "narrow"):
        parts = list(plans[name].children()) if name in plans else []
        convs = cast(list[Conv], parts)
        # to is_depthwise, a pointwise one of one channel looks like one
        if len(parts) > 1 and {*map(type, parts)} <= {*CONVS} and convs[0].in_channels > 1:
            last_dense = max(number for number, conv in enumerate(convs) if not is_depthwise(conv))
            middle = convs[0].out_channels  # and of all before the last dense one
            widths = {-(-middle // grid) * grid for grid in grids} - {middle} if last_dense else ()
            for width in widths:
                found[f"{name}, padded to {width}"] = _padded(convs, last_dense, width - middle)
    return found


def _padded(convs: Sequence[Conv], last_dense: int, extra: int) -> nn.Module:
    parts: list[nn.Module] = []
    more_in = 0
    for number, conv in enumerate(convs):
        depthwise = is_depthwise(conv)
        more_out = extra if number < last_dense else 0
        more = (0, 0 if depthwise else more_in, 0, more_out)
        weight = F.pad(conv.weight, (0, 0) * len(conv.kernel_size) + more)
        bias = None if conv.bias is None else F.pad(conv.bias, (0, more_out))
        parts.append(convolution(conv, weight, bias, len(weight) if depthwise else 1))
        more_in = more_out
    return nn.Sequential(*parts)
