"""Which settings of a run decide its result, and how they differ from its recipe."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..config import TrainConfig

# how steps are computed: they change the speed, and the result by rounding only
EXECUTION = ("device", "compile", "plan", "precision")
Settings = dict[str, Any]
# what runs did before these settings existed, which their records lack
BEFORE: Settings = {
    "compile": False,
    "plan": "factored",
    "precision": "float32",
    "optimizer": "sgd",
}
_SGD: Settings = {"optimizer": "sgd", "learning_rate": 0.3, "momentum": 0.9, "weight_decay": 5e-4}
# recipes as they were when older records were made, by the recipe's name
FORMER = {"fast": {"fast (SGD)": _SGD}}


def deciding(config: TrainConfig) -> TrainConfig:
    """The same for runs that differ only in seed, folders and execution."""
    same = {name: getattr(TrainConfig, name) for name in ("seed", "data", "out", *EXECUTION)}
    return dataclasses.replace(config.resolved(), **same)


def recipe_of(config: TrainConfig) -> tuple[str, dict[str, Any]]:
    """The recipe closest to the run, today's or a former one, and the settings that differ from it.

    Model, data, length and seed do not belong to the recipe.
    """
    free = ("model", "dataset", "bsconv", "p", "with_bn", "epochs")
    kept = {name: getattr(config, name) for name in (*free, "recipe")}
    today = dataclasses.asdict(deciding(TrainConfig(**kept)))
    recipes = {config.recipe: today}
    for label, settings in FORMER.get(config.recipe, {}).items():
        recipes[label] = today | settings
    mine = dataclasses.asdict(deciding(config))
    others = {
        label: {name: value for name, value in mine.items() if value != usual[name]}
        for label, usual in recipes.items()
    }
    label = min(others, key=lambda label: len(others[label]))
    return label, others[label]
