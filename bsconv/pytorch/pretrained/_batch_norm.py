"""BatchNorm's statistics estimated again, on unlabelled images."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .._tools.model_tree import check_module, evaluating
from ._inputs import LIMIT, Inputs, check_positive, read_inputs


@torch.inference_mode(False)
def reestimate_batch_norm(
    model: nn.Module, images: Tensor | Iterable[Any], *, batch_size: int = 50
) -> nn.Module:
    """Sets the running statistics of every BatchNorm to those of ``images``, and returns ``model``.

    ``images`` are as for :func:`project_pretrained`. Means over all batches; a last, smaller one is
    left out if there are others. Weights, modes and momenta stay as they are. Raises ValueError for
    a ``batch_size`` below 1, for images that the model doesn't take or that are not finite, and for
    statistics too large for their dtype; if anything stops it, those before stay.

    >>> model = reestimate_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), torch.rand(9, 3, 8, 8))
    """
    check_module(model)
    check_positive(batch_size=batch_size)
    set_statistics(model, read_inputs(model, images, LIMIT), batch_size)
    return model


@torch.no_grad()
def set_statistics(model: nn.Module, inputs: Inputs, batch_size: int) -> None:
    """See :func:`reestimate_batch_norm`."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    former = [(norm.momentum, copy.deepcopy(norm.state_dict())) for norm in norms]
    batches = list(inputs.split(batch_size))
    try:
        with evaluating(model):
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # cumulative
                norm.train()
            for batch in [batch for batch in batches if len(batch) == batch_size] or batches:
                batch.run(model)
        if not all(buffer.isfinite().all() for norm in norms for buffer in norm.buffers()):
            rule = "images needs numbers whose variance is a number of its dtype at each BatchNorm"
            raise ValueError(f"{rule}, got NaN or infinity as running statistics")
    except BaseException:
        for norm, (_, state) in zip(norms, former, strict=True):
            norm.load_state_dict(state)
        raise
    finally:
        for norm, (momentum, _) in zip(norms, former, strict=True):
            norm.momentum = momentum
