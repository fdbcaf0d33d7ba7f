"""The forms that a BSConv layer can take where it is not trained any more: fewer convolutions."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from .._tools.convs import batch_norm_map, conv_arguments, memory_format_of, pads_with_zeros
from .._tools.numerics import exact_dtype
from ..decomposition import compose
from ..initialization import uninitialized
from ..modules import BSConvS, BSConvU
from ._folding import is_as_made, is_fixed


class Affine(NamedTuple):
    """``x -> matrix @ x + shift`` on the channels of each pixel, in float64."""

    matrix: Tensor  # (outputs, inputs)
    shift: Tensor  # (outputs,)

    def after(self, first: "Affine") -> "Affine":
        return Affine(self.matrix @ first.matrix, self.matrix @ first.shift + self.shift)

    @property
    def shifts(self) -> bool:
        return bool((self.shift != 0).any())


class ShiftedConv2d(nn.Module):
    """A dense convolution plus what a shift of the channels, before zero padding, adds to it.

    BatchNorm between pointwise and depthwise convolution shifts the channels, and the depthwise one
    pads with zeros after that: at the border, fewer pixels bring the shift along. So it adds a map
    (1, out channels, H', W') that is the same for all images, and one bias per channel but for the
    border.
    """

    shift: Tensor

    def __init__(self, conv: nn.Conv2d, dw: nn.Conv2d, shift: Tensor) -> None:
        super().__init__()
        self.conv = conv
        self.dw = dw
        self.register_buffer("shift", shift)

    def forward(self, input: Tensor) -> Tensor:
        flat = self.shift[None, :, None, None].expand(-1, -1, *input.shape[2:])
        return cast(Tensor, self.conv(input)) + cast(Tensor, self.dw(flat))


def forms(layer: BSConvU | BSConvS) -> dict[str, nn.Module]:
    """Modules that compute what ``layer`` computes in eval mode, by the name of the form.

    "factored": one convolution after the other, BatchNorms folded into them. "joined" (BSConvS):
    pointwise ones multiplied. "narrow" (BSConvS): ``pw1``, then one dense convolution of its few
    channels. "merged": one dense convolution. Empty where parts of the layer are other than plain
    convolutions and BatchNorms with running statistics, or have hooks, and for subclasses.
    """
    parts = list(layer)
    norms = [part for part in parts if isinstance(part, nn.BatchNorm2d)]
    if not is_as_made(layer) or not all(map(is_fixed, norms)):
        return {}
    steps = _pointwise_steps(layer)
    found = {"factored": nn.Sequential(*(_pointwise(step, layer.dw) for step in steps), layer.dw)}
    whole = steps[0]
    if len(steps) > 1:
        whole = steps[1].after(steps[0])
        found["joined"] = nn.Sequential(_pointwise(whole, layer.dw), layer.dw)
        basis = _pointwise(steps[0], layer.dw)
        found["narrow"] = nn.Sequential(basis, _dense(steps[1], layer.dw))
    return cast(dict[str, nn.Module], found) | {"merged": _dense(whole, layer.dw)}


def _pointwise_steps(layer: BSConvU | BSConvS) -> list[Affine]:
    """Each pointwise convolution with the BatchNorm behind it."""
    exact = exact_dtype(layer.dw.weight)
    steps: list[Affine] = []
    for part in layer:
        if isinstance(part, nn.BatchNorm2d):
            scale, offset = batch_norm_map(part, exact)
            matrix, shift = steps[-1]
            steps[-1] = Affine(scale[:, None] * matrix, scale * shift + offset)
        elif isinstance(part, nn.Conv2d) and part is not layer.dw:
            matrix = part.weight.detach().flatten(1).to(exact)
            steps.append(Affine(matrix, matrix.new_zeros(len(matrix))))
    return steps


def _pointwise(step: Affine, dw: nn.Conv2d) -> nn.Conv2d:
    outputs, inputs = step.matrix.shape
    conv = uninitialized(nn.Conv2d, inputs, outputs, 1, bias=step.shifts, **_place(dw))
    return _filled(conv, step.matrix[:, :, None, None], step.shift, dw)


def _dense(step: Affine, dw: nn.Conv2d) -> nn.Module:
    outputs, inputs = step.matrix.shape
    blueprints = dw.weight.detach()[:, 0].to(step.matrix)
    bordered = step.shifts and pads_with_zeros(dw)
    bias = torch.zeros_like(step.shift) if dw.bias is None else dw.bias.detach().to(step.shift)
    if step.shifts and not bordered:
        bias = bias + step.shift * blueprints.sum((1, 2))
    arguments = conv_arguments(dw) | {"bias": dw.bias is not None or (step.shifts and not bordered)}
    conv = uninitialized(nn.Conv2d, inputs, outputs, **arguments)
    conv = _filled(conv, compose(step.matrix, blueprints), bias, dw)
    if not bordered:
        return conv
    spread = uninitialized(
        nn.Conv2d, outputs, outputs, **conv_arguments(dw) | {"bias": False, "groups": outputs}
    )
    return ShiftedConv2d(conv, _filled(spread, dw.weight, bias, dw), step.shift.to(dw.weight.dtype))


def _place(dw: nn.Conv2d) -> dict[str, Any]:
    return {"device": dw.weight.device, "dtype": dw.weight.dtype}


@torch.no_grad()
def _filled(conv: nn.Conv2d, weight: Tensor, bias: Tensor, dw: nn.Conv2d) -> nn.Conv2d:
    conv.weight.copy_(weight)
    if conv.bias is not None:
        conv.bias.copy_(bias)
    conv.to(memory_format=memory_format_of(dw.weight))
    return conv.requires_grad_(False).eval()
