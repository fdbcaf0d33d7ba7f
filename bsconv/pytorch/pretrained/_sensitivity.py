"""How much a network's answer changes with each channel of a layer, and with several together.

The error of a layer matters as far as it reaches the answer: two channels whose errors cancel there
may well be wrong. The trained network's own derivatives tell; nothing is stepped along them.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from .._tools.model_tree import tensors_in
from .._tools.numerics import power_of_two_scale
from ._inputs import Inputs
from ._operations import Number, Operation, visiting

PROBES = 3  # directions in the space of outputs, drawn at random for each image
EQUAL_SHARE = 0.1  # of the metric: each channel counts the same, apart from all others

Sensitivity = tuple[Tensor, float | None]  # a metric and a scale


def sensitivities(
    model: nn.Module,
    batches: Iterable[Inputs],
    layers: Mapping[str, nn.Module],
    numbers: set[Number],
) -> dict[Number, Sensitivity]:
    """For operations of these numbers, a metric (N, N) of mean diagonal 1, and a scale.

    The damage of errors e (N) at all places of their outputs is scale * e @ metric @ e: nats of the
    divergence of the classes' probabilities where the model returns a matrix of logits (by their
    Fisher information), else half of the squared error relative to the variance of the answer, to
    second order, per image. Errors at different places are taken as unrelated. Operations without
    finite derivatives are left out.
    """
    energies: dict[Number, Tensor] = {}
    count = 0
    generator = torch.Generator().manual_seed(0)

    def add(number: Number, slope: Tensor) -> None:
        rows = slope.transpose(0, 1).flatten(1).T
        scale = power_of_two_scale(rows)
        products = ((rows / scale).T @ (rows / scale)).double()
        energies[number] = energies.get(number, 0) + scale.double()[:, None] * products * scale

    def visit(operation: Operation) -> Any:
        output = operation.run()
        if operation.number in numbers and isinstance(output, Tensor) and output.requires_grad:
            cast(Any, output).register_hook(partial(add, operation.number))
            return output.clone()  # what comes next may write into it
        return output

    for batch in batches:
        count += len(batch) * PROBES
        with torch.enable_grad():
            batch = batch.with_derivatives()
            with visiting(layers, visit):
                outputs = batch.run(model)
        answers = [a for a in tensors_in(outputs) if a.requires_grad and a.is_floating_point()]
        answers = [a for a in answers if a.dim() and a.numel()]
        try:
            for left in reversed(range(PROBES if answers else 0)):
                probe = [_direction(a.detach(), len(answers), generator) for a in answers]
                keep = left > 0
                torch.autograd.grad(answers, batch.tensors(), probe, keep, allow_unused=True)
        except RuntimeError:  # something in the network has no derivative
            return {}
    return {n: _sensitivity(e / count) for n, e in energies.items() if e.isfinite().all()}


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
    eye, scale = torch.eye(len(energy)).to(energy), energy.diagonal().mean()
    if scale <= 0:
        return eye, 0.0
    return (1 - EQUAL_SHARE) * energy / scale + EQUAL_SHARE * eye, 0.5 * float(scale)
