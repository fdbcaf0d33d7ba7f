"""Fits the classifier of a new network to what the old one's says: ridge regression."""

from collections import Counter
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ._landings import Call, Point, capture
from ._scaling import check_finite


def find_head(model: nn.Module, images: Tensor) -> str | None:
    """The name of the Linear whose output is what the model returns; None where there is none."""
    returned: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()

    def after(name: str, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        returned[name] = output
        counts[name] += 1

    linear = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    handles = [
        module.register_forward_hook(partial(after, name)) for name, module in linear.items()
    ]
    try:
        with torch.no_grad():
            output = model(images)
    finally:
        for handle in handles:
            handle.remove()
    heads = [name for name, tensor in returned.items() if tensor is output and counts[name] == 1]
    return heads[0] if heads else None


@torch.no_grad()
def refit_head(
    teacher: nn.Module, student: nn.Module, name: str, images: Tensor, batch_size: int
) -> None:
    """The head of ``student`` that says what that of ``teacher`` says, or close to what it was.

    Least squares on the outputs, in float64, for the change of the weights; the ridge is the total
    variance of the features over the number of images, so few images change little.
    """
    seen, said = Point(Call(name, 0), "input"), Point(Call(name, 0), "output")
    head = cast(nn.Linear, student.get_submodule(name))
    bias = cast(Tensor | None, head.bias)
    parts = []
    for batch in torch.split(images, batch_size):
        there = capture(student, batch, {seen, said})
        wanted = capture(teacher, batch, {said})[said]
        parts.append([t.flatten(0, -2).double() for t in (there[seen], wanted - there[said])])
    features, missing = (torch.cat(part) for part in zip(*parts, strict=True))
    check_finite(f"'{name}'", features, missing)
    mean, shift = features.mean(0), missing.mean(0)
    if bias is None:
        mean, shift = torch.zeros_like(mean), torch.zeros_like(shift)
    features, missing = features - mean, missing - shift
    gram = features.T @ features
    ridge = gram.trace() / len(images)
    gram.diagonal().add_(ridge.where(ridge > 0, 1))
    change = torch.linalg.solve(gram, features.T @ missing).T
    head.weight.add_(change.to(head.weight))
    if bias is not None:
        bias.add_((shift - change @ mean).to(bias))
