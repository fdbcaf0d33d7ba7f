"""The optimiser of a recipe."""

from __future__ import annotations

import torch
from torch import nn

from .config import TrainConfig

__all__ = ["make_optimizer"]


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """SGD; the recipe says whether biases and BatchNorm (vectors all) are decayed as well."""
    settings = config.settings
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    vectors = [] if settings.decay_all else [tensor for tensor in parameters if tensor.ndim < 2]
    weights = [tensor for tensor in parameters if settings.decay_all or tensor.ndim >= 2]
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov and settings.momentum > 0,  # SGD takes no nesterov without
    )
