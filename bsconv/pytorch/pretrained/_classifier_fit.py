"""Fits the classifier of a new network to what the dense one's says: ridge regression."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from .._tools.numerics import check_finite
from ._inputs import Inputs
from ._operations import Operation, visiting


@torch.no_grad()
def find_head(model: nn.Module, inputs: Inputs) -> str | None:
    """The name of the classifier whose output, maybe reshaped, is what the model returns, or None.

    A classifier is a Linear, or a 1x1 convolution, which is a Linear at each position.
    """
    said: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def visit(operation: Operation) -> Any:
        output = operation.run()
        if operation.layer:  # in-place activations may follow
            said.setdefault(operation.layer, []).append((output, output.clone()))
        return output

    heads = {name: module for name, module in model.named_modules() if _is_linear(module)}
    with visiting(heads, visit):
        output = inputs.run(model)
    returned = (name for name, own in said.items() if len(own) == 1 and _is_all(output, *own[0]))
    return next(returned, None)


def _is_linear(module: nn.Module) -> bool:
    if type(module) is nn.Conv2d:
        plain = module.stride == (1, 1) and module.padding == (0, 0) and module.groups == 1
        return plain and module.kernel_size == (1, 1)
    return type(module) is nn.Linear


def _is_all(output: object, tensor: Tensor, values: Tensor) -> bool:
    """Whether it is the tensor or a reshaped view of all of it, which holds what it held."""
    if not isinstance(output, Tensor) or output.data_ptr() != tensor.data_ptr():
        return False
    there, then = output.flatten(), values.flatten()
    return len(there) == len(then) and torch.allclose(there, then, rtol=0, atol=0, equal_nan=True)


@torch.no_grad()
def refit_head(
    teacher: nn.Module, student: nn.Module, name: str, inputs: Inputs, batch_size: int
) -> None:
    """The head of ``student`` that says what that of ``teacher`` says, or close to what it was.

    Least squares on the outputs, in float64, for the change of the weights; the ridge is the total
    variance of the features over the number of images, so few images change little.
    """
    head = cast(nn.Linear | nn.Conv2d, student.get_submodule(name))
    bias = head.bias
    channels = 1 if isinstance(head, nn.Conv2d) else -1
    parts = []
    for batch in inputs.split(batch_size):
        (seen, said), (_, wanted) = (_at_head(model, name, batch) for model in (student, teacher))
        pair = seen, wanted - said
        parts.append([t.movedim(channels, -1).flatten(0, -2).double() for t in pair])
    features, missing = (torch.cat(part) for part in zip(*parts, strict=True))
    check_finite(f"'{name}'", features, missing)
    mean, shift = features.mean(0), missing.mean(0)
    if bias is None:
        mean, shift = torch.zeros_like(mean), torch.zeros_like(shift)
    features, missing = features - mean, missing - shift
    gram = features.T @ features
    ridge = gram.trace() / len(inputs)
    gram.diagonal().add_(ridge.where(ridge > 0, 1))
    change = torch.linalg.solve(gram, features.T @ missing).T
    head.weight.add_(change.to(head.weight).view_as(head.weight))
    if bias is not None:
        bias.add_((shift - change @ mean).to(bias))


def _at_head(model: nn.Module, name: str, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """What the classifier sees and what it says."""
    found: list[tuple[Tensor, Tensor]] = []

    def visit(operation: Operation) -> Any:
        output = operation.run()
        if operation.layer:
            found.append((operation.args[0].clone(), output.clone()))
        return output

    with visiting({name: model.get_submodule(name)}, visit):
        inputs.map(torch.clone).run(model)
    return found[0]
