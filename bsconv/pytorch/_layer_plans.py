"""How a BSConv layer is computed: its convolutions in turn, or multiplied into fewer.

All layer plans are the same function of the same weights. Which of them is the fastest depends on
shapes, dtype and device, so it is measured.
"""

import copy
import functools
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from ._tools.batch_norm import centre_of, normed_product
from ._tools.convs import CONVOLUTIONS
from ._tools.joining import product
from ._tools.stand_in import StandIn
from ._tools.timing import in_turns

REPEATS = 3
CONVOLVE: tuple[Any, ...] = (F.conv1d, F.conv2d, F.conv3d)  # by the number of dimensions, less one

_fastest: dict[tuple[Any, ...], str] = {}


class PlannedLayer(StandIn):
    """What the BSConv layers share: several plans to compute the same."""

    __jit_unused_properties__ = (*StandIn.__jit_unused_properties__, "plan", "chosen_plan")
    _plans: ClassVar[tuple[str, ...]]
    _narrow_with_norms: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self._plan = self._measured_plan = "factored"

    @property
    def plan(self) -> str:
        """How the layer is computed; weights, outputs and gradients are the same with each.

        "factored", the default: its convolutions in turn. "merged": their weights are multiplied
        into a dense kernel in each forward pass, for one dense convolution. "joined" (BSConvS): the
        pointwise weights alone are multiplied. "narrow" (BSConvS, BSConvCP): ``pw1``, then one
        dense convolution of its few channels. "auto": the fastest of them, forward and backward,
        measured the first time for the shapes, dtype, device and mode at hand and remembered. Where
        torch.compile traces the layer, it is the one it ran last outside, "factored" if it never
        did: call the model once before.

        With BatchNorm in between, "narrow" of a BSConvS is possible and the others are not. A plan
        that is not possible, for example since parts of the layer are not plain convolutions any
        more or have hooks, which only they would run, is computed factored. Raises ValueError for
        an unknown plan.
        """
        return self._plan

    @plan.setter
    def plan(self, plan: str) -> None:
        known = (*self._plans, "auto")
        if plan not in known:
            names = ", ".join(map(repr, known))
            raise ValueError(
                f"plan of a {type(self).__name__} needs to be one of {names}, got {plan!r}"
            )
        self._plan = plan

    @property
    def chosen_plan(self) -> str:
        """``plan``, or what "auto" found to be the fastest when it was last asked."""
        return self._measured_plan if self._plan == "auto" else self._plan

    def forward(self, input: Tensor) -> Tensor:
        if self._plan != "factored":
            return self._planned(input)
        for layer in self:
            input = layer(input)
        return input

    @torch.jit.unused
    def _planned(self, input: Tensor) -> Tensor:
        plans = self._possible_plans(input)
        if self._plan == "auto" and len(plans) > 1 and takes_time(input):
            self._measured_plan = fastest_plan(plans, self, input)
        plan = self.chosen_plan
        if plan == "factored" or plan not in plans:
            return cast(Tensor, super().forward(input))  # type: ignore[no-untyped-call]
        return self._as_planned(plan, input)

    def _possible_plans(self, input: Tensor) -> Sequence[str]:
        if not all(map(is_plain, self)):
            return ("factored",)
        if not any(isinstance(layer, BatchNorm) for layer in self):
            return self._plans
        several = input.numel() > self.in_channels  # BatchNorm cannot learn from a single pixel
        return ("factored", "narrow") if several and self._narrow_with_norms else ("factored",)

    def _as_planned(self, plan: str, input: Tensor) -> Tensor:
        layers: list[Any] = list(self)
        if isinstance(layers[1], BatchNorm):
            return _convolve_normed(input, *layers)
        return _convolve(plan, input, layers, self.dw)


def is_plain(layer: nn.Module) -> bool:
    """Whether calling ``layer`` is its convolution or BatchNorm and nothing else."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    plain = type(layer) in (*CONVOLUTIONS, *norms) and "forward" not in layer.__dict__
    return plain and not hooked and not layer._backward_pre_hooks


def takes_time(images: Tensor) -> bool:
    """Whether there is something to measure: what is traced or on the meta device takes none."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    traced = torch.compiler.is_compiling() or tracing
    return not traced and not images.is_meta and type(images) in (Tensor, nn.Parameter)


def _convolve(plan: str, images: Tensor, layers: Sequence[nn.Conv2d], dw: nn.Conv2d) -> Tensor:
    """The convolutions ``layers`` in one or two steps, each with the product of their weights."""
    cut = {"joined": layers.index(dw), "narrow": 1, "merged": 0}[plan]
    for step in filter(None, (layers[:cut], layers[cut:])):
        weights = [layer.weight for layer in step]
        weight = functools.reduce(functools.partial(product, depthwise=dw.weight), weights)
        groups = dw.groups if weight is dw.weight else 1
        images = _as_layer(dw if dw in step else step[0], images, weight, step[-1].bias, groups)
    return images


def _convolve_normed(
    images: Tensor,
    pw1: nn.Conv2d,
    bn1: BatchNorm,
    pw2: nn.Conv2d,
    bn2: BatchNorm,
    dw: nn.Conv2d,
) -> Tensor:
    """Plan "narrow" of a BSConvS with BatchNorm.

    What the BatchNorms add to the channels, ``dw`` spreads over positions as it does with any
    images: less at a padded border than elsewhere. This map is the same for all images.
    """
    images = _as_layer(pw1, images, pw1.weight, None)
    centre = centre_of(bn1, images)
    sides = (..., *(None for _ in dw.kernel_size))
    images = images - centre[sides]
    matrix, constant = normed_product(bn1, pw2.weight, bn2, images, centre)
    output = _as_layer(dw, images, matrix[sides] * dw.weight, dw.bias)
    with torch.autocast(images.device.type, enabled=False):
        flat = constant[sides].expand(1, -1, *images.shape[2:])
        added = _as_layer(dw, flat, dw.weight, None, dw.groups)
    return output + added.to(output.dtype)


def _as_layer(
    like: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1
) -> Tensor:
    """A convolution with the geometry of ``like``."""
    padding: str | tuple[int, ...] = like.padding
    if like.padding_mode != "zeros":
        images = F.pad(images, like._reversed_padding_repeated_twice, mode=like.padding_mode)
        padding = (0,) * len(like.kernel_size)
    convolve = CONVOLVE[weight.dim() - 3]
    result: Tensor = convolve(images, weight, bias, like.stride, padding, like.dilation, groups)
    return result


def fastest_plan(plans: Sequence[str], layer: nn.Module, images: Tensor) -> str:
    """The plan with the shortest forward pass, and backward pass where gradients are recorded.

    Measured the first time for these shapes, dtype, device and mode, on a copy, and remembered.
    """
    weights = [tensor.shape for tensor in layer.parameters()]
    key = (*plans, *_situation(images), *weights, repr(layer), layer.training)
    if key not in _fastest:
        trial = copy.deepcopy(layer)
        example = images.detach().requires_grad_(torch.is_grad_enabled())
        contenders = {plan: functools.partial(_step, plan, trial, example) for plan in plans}
        taken = in_turns(contenders, images.device, rounds=REPEATS)
        _fastest[key] = min(plans, key=lambda plan: min(taken[plan]))
    return _fastest[key]


def _step(plan: str, layer: Any, images: Tensor) -> None:
    layer.plan = plan
    output = layer(images)
    if output.requires_grad:
        wanted = [images, *(weight for weight in layer.parameters() if weight.requires_grad)]
        torch.autograd.grad(output, wanted, torch.ones_like(output))


def _situation(images: Tensor) -> tuple[Any, ...]:
    device = images.device.type
    autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
    place = (images.shape, images.stride(), images.dtype, images.device)
    return (*place, autocast, torch.is_grad_enabled(), torch.get_num_threads())
