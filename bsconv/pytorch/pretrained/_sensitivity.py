"""How much a network's answer changes with each channel of a layer, and with which together.

The error of a layer matters as far as it reaches the answer: two channels whose errors cancel there
may well be wrong. The trained network's own derivatives tell; nothing is stepped along them.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from .._tools.numerics import power_of_two_scale
from ._tracing import Point, at_points

PROBES = 3  # directions in the space of outputs, drawn at random for each image
EQUAL_SHARE = 0.1  # of the metric: each channel counts the same, apart from all others


def sensitivities(
    model: nn.Module, images: Tensor, points: Collection[Point], batch_size: int
) -> dict[Point, Tensor]:
    """For each point a positive definite metric (N, N) for errors e (N) at one place of it.

    Up to a factor, ``e @ metric @ e`` is about how far the error moves the answer: the classes'
    probabilities where the model returns a matrix of logits (Fisher information), else the outputs
    themselves. The mean diagonal is 1. Errors at different places are taken as unrelated. Left out
    are points from which no derivatives reach what the model returns, or none that are finite.
    """
    energies: dict[Point, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    for batch in torch.split(images, batch_size):
        outputs, reached = _trace(model, batch, points)
        if not isinstance(outputs, Tensor) or not outputs.requires_grad:
            return {}
        for _ in range(PROBES):
            direction = _direction(outputs.detach(), generator)
            slopes = torch.autograd.grad(
                outputs, list(reached.values()), direction, retain_graph=True, allow_unused=True
            )
            for point, slope in zip(reached, slopes, strict=True):
                if slope is not None:
                    rows = slope.transpose(0, 1).flatten(1).T
                    energies[point] = energies.get(point, 0) + _energy(rows)
    known = {point: energy for point, energy in energies.items() if energy.isfinite().all()}
    return {point: _metric(energy) for point, energy in known.items()}


def _energy(rows: Tensor) -> Tensor:
    """Sums of products of columns (R, N), in float64."""
    scale = power_of_two_scale(rows)
    rows = rows / scale
    return scale.double()[:, None] * (rows.T @ rows).double() * scale.double()


def _direction(outputs: Tensor, generator: torch.Generator) -> Tensor:
    """Random, with the covariance of which the metric is the image."""
    drawn = torch.randn(outputs.shape, generator=generator).to(outputs)
    if outputs.dim() != 2 or outputs.shape[1] == 1:
        return drawn
    chances = outputs.double().softmax(1)
    drawn = drawn * chances.sqrt()
    # diag(chances) - chances chances^T; by sums over the others, since 1 - chance cancels near one
    others = 1 - torch.eye(outputs.shape[1]).to(chances)
    return (drawn * (chances @ others) - chances * (drawn @ others)).to(outputs)


def _metric(energy: Tensor) -> Tensor:
    eye = torch.eye(len(energy), dtype=energy.dtype, device=energy.device)
    scale = energy.diagonal().mean()
    return (1 - EQUAL_SHARE) * energy / scale + EQUAL_SHARE * eye if scale > 0 else eye


def _trace(
    model: nn.Module, images: Tensor, points: Collection[Point]
) -> tuple[object, dict[Point, Tensor]]:
    """What the model returns, and the tensors at ``points`` from which that was computed."""
    found: dict[Point, Tensor] = {}

    def note(point: Point, value: Tensor) -> Tensor:
        if not value.requires_grad:
            return value
        found[point] = value
        return value.clone()  # what comes next may write into it

    with at_points(model, points, note), torch.enable_grad():
        return model(images.clone().requires_grad_()), found
