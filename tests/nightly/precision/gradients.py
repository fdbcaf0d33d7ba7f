"""Gradients against finite differences, in float64: layers with each plan, the penalty, kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bsconv.pytorch import BSConvS, BSConvU, reg_loss
from bsconv.pytorch.decomposition import compose
from bsconv.pytorch.regularization import OrthonormalConv2d, orthonormality_penalty

from .inputs import numbers
from .layers import BATCH_NORM_PLANS, NEEDED, PLANS, Layer, fill

GEOMETRIES: tuple[dict[str, Any], ...] = (
    {"padding": 1},
    {"padding": 2, "stride": 2, "dilation": 2, "bias": False},
    {"padding": 1, "padding_mode": "reflect"},
)


def check_all(geometries: Sequence[dict[str, Any]] = GEOMETRIES) -> list[str]:
    """The titles of all gradients that were checked; RuntimeError from torch tells a wrong one."""
    titles = []
    for title, function, inputs in (*_layers(geometries), *_penalties()):
        given = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        torch.autograd.gradcheck(function, given)
        titles.append(title)
    return titles


Checked = tuple[str, Callable[..., Tensor], list[Tensor]]


def _layers(geometries: Sequence[dict[str, Any]]) -> Iterator[Checked]:
    for layer_class, plans in PLANS.items():
        for norm, training in ((False, True), (True, True), (True, False)):
            for plan in BATCH_NORM_PLANS[layer_class] if norm else plans:
                for geometry in geometries:
                    normed = f", BatchNorm in {'training' if training else 'eval'}" if norm else ""
                    title = f"{layer_class.__name__}, {plan}{normed}, {_text(geometry)}"
                    options = {**NEEDED[layer_class], **geometry, "with_bn": norm}
                    layer = layer_class(3, 4, 3, dtype=torch.float64, **options)
                    fill(layer, "ordinary")
                    layer.train(training).plan = plan
                    yield title, *_as_function(layer)


def _as_function(layer: Layer) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """Of images and all parameters; running statistics start the same in each call."""
    names = [name for name, _ in layer.named_parameters()]
    buffers = {name: tensor.clone() for name, tensor in layer.named_buffers()}

    def function(images: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        fresh = {name: tensor.clone() for name, tensor in buffers.items()}
        return functional_call(layer, state | fresh, (images,))

    images = numbers("ordinary", 2, 3, 5, 5).double()
    return function, [images, *layer.parameters()]


def _penalties() -> Iterator[Checked]:
    """Also where rows are orthonormal, to the last bit: there both sides are zero."""
    bases = {
        "ordinary": numbers("ordinary", 3, 5),
        "orthonormal": torch.eye(3, 5),
        "orthonormal, signed and permuted": torch.tensor([[0, -1.0, 0, 0], [0, 0, 0, 1.0]]),
        "rank-deficient": numbers("rank-deficient", 4, 6),
        "zero": torch.zeros(2, 4),
        "large": 100 * numbers("ordinary", 3, 5),
    }
    for kind, basis in bases.items():
        yield f"penalty, {kind} basis", orthonormality_penalty, [basis.double()]
    yield "compose", compose, [torch.ones(3, 4).double(), numbers("ordinary", 3, 2, 2).double()]
    yield "reg_loss", *_reg_loss()


def _reg_loss() -> tuple[Callable[..., Tensor], list[Tensor]]:
    """With a layer at its optimum, and two of one shape."""
    layers = (BSConvS(8, 4, 1), BSConvS(8, 4, 1), OrthonormalConv2d(5, 3, 1), BSConvU(3, 3, 3))
    model = nn.Sequential(*layers)
    fill(model, "ordinary")
    model.double()
    with torch.no_grad():
        weight = model.get_parameter("1.pw1.weight")
        weight.copy_(torch.eye(*weight.shape[:2])[:, :, None, None])
    names = ["0.pw1.weight", "1.pw1.weight", "2.weight"]

    def function(*weights: Tensor) -> Tensor:
        wrapped = _Penalty(model)
        state = {f"model.{name}": weight for name, weight in zip(names, weights, strict=True)}
        return functional_call(wrapped, state, ())

    return function, [model.get_parameter(name) for name in names]


class _Penalty(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self) -> Tensor:
        return reg_loss(self.model, alpha=0.3)


def _text(geometry: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in geometry.items())
