"""The optimiser of a recipe: SGD or Adam for all weights, or Muon for those that mix channels."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from ..pytorch.regularization import OrthonormalBasis
from .config import TrainConfig

ADAM_SECOND_MOMENT = 0.999
MUON_SHARE = 1 / 6  # of the learning rate of SGD
MUON_MOMENTUM = 0.95
MUON_DECAY = 0.01
NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315  # singular values of (0, 1] to about 1 in five steps
NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Momentum SGD whose steps are orthogonal matrices (Jordan et al. 2024).

    A kernel (out, in, ...) is the matrix (out, in * ...). Each step has all singular values near 1,
    times the square root of out / in where that is above 1, so rare directions are learnt as fast
    as frequent ones. ``weight_decay`` is decoupled: a step shrinks a weight by ``lr`` times it.
    Unlike by torch.optim.Muon, kernels of one shape are stepped together, which is much faster.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            rate, momentum = group["lr"], group["momentum"]
            for parameters in by_shape.values():
                directions = torch.stack([self._direction(p, momentum) for p in parameters])
                _, rows, columns = directions.shape
                size = rate * max(1.0, rows / columns) ** 0.5
                for parameter, step in zip(parameters, orthogonal(directions), strict=True):
                    parameter.mul_(1 - rate * group["weight_decay"])
                    parameter.sub_(step.view(parameter.shape), alpha=size)

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        """Nesterov's, as a matrix."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum"], momentum).flatten(1)


def orthogonal(matrices: Tensor) -> Tensor:
    """Of matrices (n, rows, columns): the same singular vectors, all singular values near 1."""
    _, rows, columns = matrices.shape
    wide = matrices if rows <= columns else matrices.mT
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if rows <= columns else wide.mT


class Optimizers:
    """Several optimisers of one model that step together."""

    learning_rate = 0.0  # of the last step, for SGD; Muon's is a fixed share of it

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers

    def step(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        for optimizer in self.optimizers:
            share = MUON_SHARE if isinstance(optimizer, Muon) else 1.0
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * share
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {str(number): each.state_dict() for number, each in enumerate(self.optimizers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for number, optimizer in enumerate(self.optimizers):
            optimizer.load_state_dict(state[str(number)])


def make_optimizer(model: nn.Module, config: TrainConfig) -> Optimizers:
    """The recipe's. Muon takes the kernels that mix channels, SGD the rest: blueprints, which are
    one channel deep, the classifier, vectors, and bases. The penalty holds the rows of a basis at
    length 1, so Muon's steps, all of one length, would never let them come to rest."""
    settings, rate = config.settings, config.settings.learning_rate
    # a layer gives its basis as a view of a weight: they lie at one place in memory
    layers = (layer for layer in model.modules() if isinstance(layer, OrthonormalBasis))
    bases = {layer.basis().data_ptr() for layer in layers}
    mixing: list[Tensor] = []
    decayed: list[Tensor] = []
    vectors: list[Tensor] = []
    for tensor in model.parameters():
        if tensor.requires_grad:
            mixes = tensor.ndim > 2 and tensor.shape[1] > 1 and tensor.data_ptr() not in bases
            if mixes and settings.optimizer == "muon":
                mixing.append(tensor)
            else:
                (decayed if settings.decay_all or tensor.ndim >= 2 else vectors).append(tensor)
    optimizers: list[torch.optim.Optimizer] = []
    if mixing:
        defaults = {"lr": rate * MUON_SHARE, "momentum": MUON_MOMENTUM, "weight_decay": MUON_DECAY}
        optimizers.append(Muon(mixing, defaults))
    decays = (decayed, settings.weight_decay), (vectors, 0.0)
    groups = [{"params": found, "weight_decay": decay} for found, decay in decays if found]
    momentum = settings.momentum
    fused = all(tensor.device.type in ("cpu", "cuda") for tensor in decayed + vectors)
    if groups and settings.optimizer == "adam":
        betas = momentum, ADAM_SECOND_MOMENT
        optimizers.append(torch.optim.AdamW(groups, lr=rate, betas=betas, fused=fused))
    elif groups:
        nesterov = settings.nesterov and momentum > 0  # SGD takes no nesterov without
        optimizers.append(torch.optim.SGD(groups, rate, momentum, nesterov=nesterov, fused=fused))
    return Optimizers(*optimizers)
