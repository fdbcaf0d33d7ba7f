"""Recipes: the settings of an optimiser and its schedule, by their names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Settings of the optimiser with their schedule."""

    learning_rate: float
    weight_decay: float
    optimizer: str  # "sgd", "adam", or "muon" for weights that mix channels and SGD for the rest
    momentum: float = 0.9
    nesterov: bool = False
    decay_all: bool = False  # weight decay on biases and BatchNorm too
    milestones: tuple[int, ...] | None = None  # tenfold drops after these epochs; None: one cycle
    fixed_batch_norm: bool = False  # BatchNorm goes on with the statistics that it starts with
    batch_size: int = 128


RECIPES = {
    # the published CIFAR script, for its 200 epochs of batches of 128
    "published": Recipe(0.1, 1e-4, "sgd", decay_all=True, milestones=(100, 150, 180)),
    "fast": Recipe(0.3, 5e-4, "muon", nesterov=True),
    # a few epochs of a network that is trained already
    "finetune": Recipe(5e-4, 0.0, "adam", fixed_batch_norm=True, batch_size=64),
}
