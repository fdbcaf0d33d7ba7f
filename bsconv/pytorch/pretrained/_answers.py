"""What the new network answers, compared with the dense one."""

import torch
from torch import Tensor, nn

from .._tools.numerics import check_finite
from ._classifier_fit import find_head, refit_head
from ._dense import TRACED, Dense
from ._inputs import Inputs


def finish(dense: Dense, student: nn.Module) -> None:
    """Fits the classifier to what it sees now, where there is one."""
    head = find_head(dense.model, dense.inputs.first(TRACED))
    if head is not None and type(student.get_submodule(head)) in (nn.Linear, nn.Conv2d):
        refit_head(dense.model, student, head, dense.inputs, dense.sampler.group_size)


@torch.no_grad()
def agreement(
    teacher: nn.Module, student: nn.Module, inputs: Inputs, batch_size: int
) -> float | None:
    """The share of images whose largest output is the same; None where there are no logits."""
    same = 0
    for batch in inputs.split(batch_size):
        expected, found = batch.run(teacher), batch.run(student)
        if not isinstance(expected, Tensor) or expected.dim() != 2:
            return None
        check_finite("the outputs", expected)
        same += int((expected.argmax(1) == found.argmax(1))[found.isfinite().all(1)].sum())
    return same / len(inputs)
