"""How a BSConv layer is computed: its convolutions in turn, or multiplied into fewer.

Which of these layer plans is the fastest depends on shapes, dtype and device: it is measured.
"""

import contextlib
import copy
import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..basics.timing import in_turns
from ._tools import convs
from ._tools.convs import BatchNorm, Conv
from ._tools.joining import exact_steps, joined, normed_product, product
from ._tools.numerics import without_autocast

REPEATS = 3
WRITING = re.compile(r"[a-z]\w*[^_]_|__(set|setitem|i(add|sub|mul|truediv|floordiv|mod|pow))__")
VIEWING = ("__get__", "__getitem__", "detach", "flatten", "reshape", "view")  # the first is .data

LIKE_A_CONVOLUTION = (
    *convs.GEOMETRY, "in_channels", "out_channels", "groups", "transposed", "output_padding",
    "weight", "bias",
)  # fmt: skip
_fastest: dict[tuple[Any, ...], str] = {}


class ReadOnly(Tensor):
    """A computed tensor: no function writes into it nor into a view of it, which would be lost."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        first = next(iter((*args, *kwargs.values())), None)
        written = first if WRITING.fullmatch(name) else kwargs.get("out")
        if isinstance(written, cls):
            rule = "is computed and needs to be written into the weights of its parts"
            raise RuntimeError(f"weight of a BSConv layer {rule}, got {name}")
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            if name in VIEWING and isinstance(result, Tensor) and isinstance(first, cls):
                return result.as_subclass(cls)
        return result


class PlannedLayer(nn.Sequential):
    """Pointwise layers around a depthwise ``dw``, with several plans to compute the same."""

    if TYPE_CHECKING:  # at run time, torch.jit.script would take it for an interface
        dw: Conv

    __jit_unused_properties__ = (*LIKE_A_CONVOLUTION, "plan", "chosen_plan")
    _norm: ClassVar[type[BatchNorm]]
    _plans: ClassVar[tuple[str, ...]]
    _narrow_with_norms: ClassVar[bool] = False

    in_channels = property(lambda self: self[0].in_channels)
    out_channels = property(lambda self: self[-1].out_channels)
    kernel_size = property(lambda self: self.dw.kernel_size)
    stride = property(lambda self: self.dw.stride)
    padding = property(lambda self: self.dw.padding)
    dilation = property(lambda self: self.dw.dilation)
    padding_mode = property(lambda self: self.dw.padding_mode)
    bias = property(lambda self: self[-1].bias)
    groups = property(lambda self: 1)
    transposed = property(lambda self: False)
    output_padding = property(lambda self: (0,) * len(self.kernel_size))

    def __init__(self) -> None:
        super().__init__()
        self._plan = self._measured_plan = "factored"
        self._needs_batch = self._norm is nn.BatchNorm1d  # which takes (C, T) for a batch of C

    def __setstate__(self, state: dict[str, Any]) -> None:  # bsconv 0.4.0 pickled no plan
        plan = {"_plan": "factored", "_measured_plan": "factored", "_needs_batch": False}
        super().__setstate__(plan | state)  # type: ignore[no-untyped-call]

    @property
    def weight(self) -> Tensor:
        """The dense kernel, read-only, differentiable; AttributeError with BatchNorm in between."""
        if not all(isinstance(layer, Conv) for layer in self):
            raise AttributeError  # __getattr__ says it
        kernels = {part: convs.present_weight(part) for part in self}
        multiplied = functools.partial(product, depthwise=kernels[self.dw])
        return functools.reduce(multiplied, kernels.values()).as_subclass(ReadOnly)

    @property
    def plan(self) -> str:
        """How the layer is computed; weights, outputs and gradients are the same with each.

        "factored", the default: its convolutions in turn. "merged": their weights are multiplied
        into one dense kernel in each forward pass. "joined" (BSConvS): the pointwise weights alone
        are multiplied. "narrow" (BSConvS, BSConvCP): ``pw1``, then one dense convolution of its few
        channels. "auto": the fastest of them, forward and backward, measured the first time for the
        shapes, dtype, device and mode at hand and remembered. torch.compile and torch.func take the
        one that ran last outside: call the model once before. torch.fx and TorchScript always take
        "factored", and so does a layer with hooks on its parts or parts that are not plain
        convolutions; with BatchNorm in between, "narrow" of a BSConvS is the only other one. Raises
        ValueError for an unknown plan.
        """
        return self._plan

    @plan.setter
    def plan(self, plan: str) -> None:
        known = (*self._plans, "auto")
        if plan not in known:
            rule = f"needs to be one of {', '.join(map(repr, known))}"
            raise ValueError(f"plan of a {type(self).__name__} {rule}, got {plan!r}")
        self._plan = plan

    @property
    def chosen_plan(self) -> str:
        """``plan``, or what "auto" found to be the fastest when it was last asked."""
        return self._measured_plan if self._plan == "auto" else self._plan

    def __getattr__(self, name: str) -> Any:
        if name == "weight":
            rule = "needs convolutions alone, got a BatchNorm, which shifts the channels"
            instead = "to_conv() gives the convolution that equals both"
            raise AttributeError(f"weight of a {type(self).__name__} {rule}: {instead}")
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in LIKE_A_CONVOLUTION:
            parts = f"a {type(self).__name__} ({', '.join(self._modules)})"
            got = type(value).__name__
            raise AttributeError(f"{name} needs to be set in the parts of {parts}, got a {got}")
        super().__setattr__(name, value)

    def forward(self, input: Tensor) -> Tensor:
        asked = self._plan != "factored" or self._needs_batch
        if not torch.jit.is_scripting() and asked:  # type: ignore[attr-defined]
            return self._planned(input)
        for layer in self:
            input = layer(input)
        return input

    @torch.jit.unused
    def _planned(self, input: Tensor) -> Tensor:
        plans = self._possible_plans(input)
        if self._plan == "auto" and len(plans) > 1 and takes_time(input):
            with contextlib.suppress(Exception):  # as torch.func makes it fail
                self._measured_plan = fastest_plan(plans, self, input)
        plan = self.chosen_plan
        layers: list[Any] = list(self)
        if plan == "factored" or plan not in plans:
            return cast(Tensor, super().forward(input))  # type: ignore[no-untyped-call]
        if isinstance(layers[1], BatchNorm):
            return _convolve_normed(input, *layers)
        return _convolve(plan, input, layers, self.dw)

    def _possible_plans(self, input: Tensor) -> Sequence[str]:
        if not isinstance(input, Tensor) or not all(map(is_plain, self)):  # torch.fx has proxies
            return ("factored",)
        if not any(isinstance(layer, BatchNorm) for layer in self):
            return self._plans
        if input.dim() < 2 + len(self.kernel_size):
            name, shape = type(self).__name__, tuple(input.shape)
            raise ValueError(f"{name} with BatchNorm needs a batch, got shape {shape}")
        several = input.numel() > self.in_channels  # BatchNorm cannot learn from a single pixel
        return ("factored", "narrow") if several and self._narrow_with_norms else ("factored",)

    @torch.no_grad()
    def to_conv(self) -> Conv:
        """The dense convolution that computes the same as this layer, with weights of its own.

        The products are formed in float64. Raises ValueError where there is none: with a BatchNorm
        that normalises by its batch, and with one before a zero-padded depthwise convolution.
        """
        name = type(self).__name__
        norms = [layer for layer in self if isinstance(layer, BatchNorm)]
        if any(norm.training or norm.running_mean is None for norm in norms):
            why = "normalises by its batch, which no single convolution does"
            raise ValueError(f"{name} {why}: call eval() first, and keep running statistics")
        if isinstance(self[1], BatchNorm) and convs.pads_with_zeros(self.dw):
            form = f"{name} with BatchNorm before a zero-padded depthwise convolution"
            why = f"its padding follows BatchNorm's shift, got padding={self.padding!r}"
            raise ValueError(f"{form} equals no single convolution: {why}")
        conv: Conv = functools.reduce(joined, exact_steps(self))
        conv.to(self.dw.weight).to(memory_format=convs.memory_format_of(self.dw.weight))
        return conv.requires_grad_().train(self.training)

    def to_conv2d(self) -> nn.Conv2d:
        """:meth:`to_conv`, as it is called in two dimensions."""
        return cast(nn.Conv2d, self.to_conv())


def is_plain(layer: nn.Module) -> bool:
    """Whether calling ``layer`` is its convolution or BatchNorm and nothing else."""
    hooked = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
    plain = type(layer) in convs.PLAIN and "forward" not in layer.__dict__
    return plain and not hooked and not layer._backward_pre_hooks


def takes_time(images: Tensor) -> bool:
    """Whether a call takes time to measure: none while tracing or on the meta device."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    virtual = tracing or torch.compiler.is_compiling() or images.is_meta
    return not virtual and type(images) in (Tensor, nn.Parameter)


def _convolve(plan: str, images: Tensor, layers: Sequence[Conv], dw: Conv) -> Tensor:
    """The convolutions ``layers`` in one or two steps, each with the product of their weights."""
    cut = {"joined": layers.index(dw), "narrow": 1, "merged": 0}[plan]
    multiplied = functools.partial(product, depthwise=dw.weight)
    for step in filter(None, (layers[:cut], layers[cut:])):
        weight = functools.reduce(multiplied, [layer.weight for layer in step])
        groups = dw.groups if weight is dw.weight else 1
        images = _as_layer(dw if dw in step else step[0], images, weight, step[-1].bias, groups)
    return images


def _convolve_normed(images: Tensor, pw1: Any, bn1: Any, pw2: Any, bn2: Any, dw: Any) -> Tensor:
    """Plan "narrow" of a BSConvS with BatchNorm."""
    neutral = {name: torch.full_like(p, name == "weight") for name, p in bn1.named_parameters()}
    images = functional_call(bn1, neutral, (pw1(images),))
    matrix, constant = normed_product(bn1, pw2.weight, bn2, images)
    output = _as_layer(dw, images, convs.with_ones(matrix, dw.weight.dim()) * dw.weight, dw.bias)
    # what bn2 adds to the channels, dw spreads over positions, the same for all images
    with without_autocast(images.device.type):
        flat = convs.with_ones(constant, images.dim() - 1).expand(1, -1, *images.shape[2:])
        added = _as_layer(dw, flat, dw.weight, None, dw.groups)
    return output + added.to(output.dtype)


def _as_layer(
    like: Conv, images: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1
) -> Tensor:
    """A convolution with the geometry of ``like``."""
    padding: str | int | tuple[int, ...] = like.padding
    if like.padding_mode != "zeros":
        images = F.pad(images, like._reversed_padding_repeated_twice, mode=like.padding_mode)
        padding = 0
    convolve: Any = (F.conv1d, F.conv2d, F.conv3d)[weight.dim() - 3]
    return cast(Tensor, convolve(images, weight, bias, like.stride, padding, like.dilation, groups))


def fastest_plan(plans: Sequence[str], layer: nn.Module, images: Tensor) -> str:
    """The plan with the shortest forward (and backward) pass, measured once for each situation."""
    device, shapes = images.device.type, [tensor.shape for tensor in layer.parameters()]
    autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
    place = (images.shape, images.stride(), images.dtype, images.device, torch.get_num_threads())
    mode = (layer.training, torch.is_grad_enabled(), autocast)
    key = (*plans, *shapes, repr(layer), *place, *mode)
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
