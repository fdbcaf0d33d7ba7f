"""How much a network's answer changes with each channel of a layer, and with several together.

The error of a layer matters as far as it reaches the answer: two channels whose errors cancel there
may well be wrong. The trained network's own derivatives tell; nothing is stepped along them.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from .._tools.model_tree import tensors_in
from .._tools.numerics import power_of_two_scale
from ._inputs import Inputs
from ._operations import Operation, visiting

PROBES = 3  # directions in the space of outputs, drawn at random for each image
EQUAL_SHARE = 0.1  # of the metric: each channel counts the same, apart from all others


class Sensitivity(NamedTuple):
    """How errors ``e`` (N) at the places of one operation move the answer."""

    metric: Tensor  # (N, N), positive definite, of mean diagonal 1
    scale: float  # scale * e @ metric @ e is the damage, e being the same size at all places


def sensitivities(
    model: nn.Module,
    inputs: Inputs,
    layers: Mapping[str, nn.Module],
    numbers: Collection[int],
    batch_size: int,
) -> dict[int, Sensitivity]:
    """For the operations of these numbers what an error at their outputs (B, N, ...) does.

    The damage is the divergence of the classes' probabilities in nats where the model returns a
    matrix of logits (by their Fisher information), else half of the squared error of the outputs
    relative to their variance, each to second order, per image. Errors at different places are
    taken as unrelated. Left out are operations from which no derivatives reach what the model
    returns, or none that are finite; all, where the network has no derivatives.
    """
    energies: dict[int, Tensor] = {}
    generator = torch.Generator().manual_seed(0)

    def add(number: int, slope: Tensor) -> None:
        energies[number] = energies.get(number, 0) + _energy(slope.transpose(0, 1).flatten(1).T)

    def visit(operation: Operation) -> Any:
        output = operation.run()
        if operation.number in numbers and isinstance(output, Tensor) and output.requires_grad:
            cast(Any, output).register_hook(partial(add, operation.number))
            return output.clone()  # what comes next may write into it
        return output

    for batch in inputs.split(batch_size):
        with torch.enable_grad():
            batch = batch.with_derivatives()
            with visiting(layers, visit):
                outputs = batch.run(model)
        answers = [leaf for leaf in tensors_in(outputs) if _is_answer(leaf)]
        for probe in range(PROBES if answers else 0):
            directions = [_direction(a.detach(), len(answers), generator) for a in answers]
            keep = probe + 1 < PROBES
            try:
                torch.autograd.grad(answers, batch.tensors(), directions, keep, allow_unused=True)
            except RuntimeError:  # something in the network has no derivative
                return {}
    known = {number: energy for number, energy in energies.items() if energy.isfinite().all()}
    count = len(inputs) * PROBES
    return {number: _sensitivity(energy / count) for number, energy in known.items()}


def _is_answer(leaf: object) -> bool:
    return (
        isinstance(leaf, Tensor)
        and leaf.dim() > 0
        and leaf.numel() > 0
        and leaf.requires_grad
        and leaf.is_floating_point()
    )


def _energy(rows: Tensor) -> Tensor:
    """Sums of products of columns (R, N), in float64."""
    scale = power_of_two_scale(rows)
    rows = rows / scale
    return scale.double()[:, None] * (rows.T @ rows).double() * scale.double()


def _direction(outputs: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random, with the covariance of which the metric is the image."""
    drawn = torch.randn(outputs.shape, generator=generator).to(outputs)
    if count > 1 or outputs.dim() != 2 or outputs.shape[1] == 1:
        variance = outputs.double().var(correction=0) * outputs[0].numel() * count
        return drawn / variance.sqrt().to(drawn) if variance > 0 else drawn
    chances = outputs.double().softmax(1)
    drawn = drawn * chances.sqrt()
    # diag(chances) - chances chances^T; by sums over the others, since 1 - chance cancels near one
    others = 1 - torch.eye(outputs.shape[1]).to(chances)
    return (drawn * (chances @ others) - chances * (drawn @ others)).to(outputs)


def _sensitivity(energy: Tensor) -> Sensitivity:
    eye = torch.eye(len(energy), dtype=energy.dtype, device=energy.device)
    scale = energy.diagonal().mean()
    if scale <= 0:
        return Sensitivity(eye, 0.0)
    metric = (1 - EQUAL_SHARE) * energy / scale + EQUAL_SHARE * eye
    return Sensitivity(metric, 0.5 * float(scale))
