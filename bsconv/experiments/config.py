"""What a training run is: one frozen dataclass that checks itself. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["OPTIMIZERS", "PLANS", "PRECISIONS", "RECIPES", "Recipe", "TrainConfig"]

OPTIMIZERS = ("sgd", "muon")
PRECISIONS = ("float32", "bfloat16", "auto")
PLANS = ("factored", "merged", "auto")


@dataclass(frozen=True)
class Recipe:
    """Settings of the optimiser with their schedule; see optimizers.py."""

    learning_rate: float
    momentum: float
    weight_decay: float
    nesterov: bool
    decay_all: bool  # weight decay on biases and BatchNorm too
    milestones: tuple[int, ...] | None  # tenfold drops after these epochs; None: one cycle
    optimizer: str  # "sgd", or "muon" for the weights that mix channels and SGD for the rest


RECIPES = {
    # the published CIFAR script, for its 200 epochs of batches of 128
    "published": Recipe(
        0.1, 0.9, 1e-4, False, decay_all=True, milestones=(100, 150, 180), optimizer="sgd"
    ),
    "fast": Recipe(0.3, 0.9, 5e-4, True, decay_all=False, milestones=None, optimizer="muon"),
}


@dataclass(frozen=True)
class TrainConfig:
    """All that decides the result of a run; the defaults are the published CIFAR recipe.

    ``optimizer``, ``learning_rate``, ``momentum``, ``weight_decay`` and ``milestones`` are the
    recipe's where they are None; ``resolved()`` fills them in. Where files lie (``data``, ``out``)
    changes no result; ``weights`` is compared as it is written, and read once, when the run begins.
    """

    model: str = "cifar_resnet20_bsconvu"
    dataset: str = "cifar10"
    data: str | None = None  # folder of the archives; None: the search order of load_dataset
    out: str | None = None  # folder of the run; None: nothing is written
    bsconv: str | None = None  # "u" or "s": replace the convolutions of the model
    p: float = 0.25  # BSConv-S: share of the input channels kept
    with_bn: bool = False  # BatchNorm after each replaced pointwise conv
    init: str = "published"  # where BSConv layers start, or "matched"; see get_model
    weights: str | None = None  # file of weights, or folder of a run, to start from
    epochs: int = 200
    batch_size: int = 128
    seed: int = 0
    device: str = "auto"  # cuda if there is one, else cpu
    recipe: str = "published"
    optimizer: str | None = None  # "sgd" or "muon"
    learning_rate: float | None = None  # recipe "fast": the peak
    momentum: float | None = None
    weight_decay: float | None = None
    milestones: tuple[int, ...] | None = None  # recipe "published": the rate drops after these
    alpha: float = 0.1  # weight of the orthonormality penalty, training loss only
    crop_padding: int = 4
    flip: bool = True
    cutout: int = 0  # side of the square that is blanked, 0: none
    train_limit: int | None = None
    test_limit: int | None = None
    image_size: int | None = None  # images are resized to this on the device
    # how steps are computed, chosen at the start of a run where it is left open, see execution.py
    compile: bool | None = None  # through torch.compile: faster, after a slow first step
    plan: str = "auto"  # of the BSConv layers, see BSConvU.plan
    precision: str = "auto"  # of the forward and backward pass; weights stay in float32

    def __post_init__(self) -> None:
        for name in ("data", "out", "dataset"):  # pathlib paths are welcome
            value = getattr(self, name)
            if isinstance(value, Path):
                object.__setattr__(self, name, str(value))
        if self.weights is not None:
            if not isinstance(self.weights, (str, Path)) or not str(self.weights):
                raise ValueError(
                    f"weights must name a file of weights or a run's folder, got {self.weights!r}"
                )
            object.__setattr__(self, "weights", str(Path(self.weights)))  # ./x and x are one file
        if self.milestones is not None:
            object.__setattr__(self, "milestones", tuple(self.milestones))
        for name in ("model", "dataset", "device"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ValueError(f"{name} must be a name, got {value!r}")
        for name in ("data", "out"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{name} must be the path of a folder or None, got {value!r}")
        for name in ("with_bn", "flip"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.recipe not in RECIPES:
            names = " or ".join(repr(name) for name in RECIPES)
            raise ValueError(f"recipe must be {names}, got {self.recipe!r}")
        if self.bsconv not in (None, "u", "s"):
            raise ValueError(f"bsconv must be 'u' or 's' or None, got {self.bsconv!r}")
        if self.init not in ("published", "matched"):
            raise ValueError(f"init must be 'published' or 'matched', got {self.init!r}")
        if self.optimizer not in (None, *OPTIMIZERS):
            raise ValueError(f"optimizer must be 'sgd' or 'muon', got {self.optimizer!r}")
        if self.compile not in (None, True, False):
            raise ValueError(f"compile must be True, False or None, got {self.compile!r}")
        for name, known in (("precision", PRECISIONS), ("plan", PLANS)):
            if getattr(self, name) not in known:
                names = " or ".join(map(repr, known))
                raise ValueError(f"{name} must be {names}, got {getattr(self, name)!r}")
        for name in ("epochs", "batch_size"):
            _check_whole(name, getattr(self, name), minimum=1)
        for name in ("train_limit", "test_limit", "image_size"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name), minimum=1)
        for name in ("seed", "crop_padding", "cutout"):
            _check_whole(name, getattr(self, name), minimum=0)
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2**63, got {self.seed}")
        if self.learning_rate is not None:
            _check_number("learning_rate", self.learning_rate, "> 0")
        if self.momentum is not None:
            _check_number("momentum", self.momentum, ">= 0")
            if self.momentum >= 1:
                raise ValueError(f"momentum must be below 1, got {self.momentum!r}")
        if self.weight_decay is not None:
            _check_number("weight_decay", self.weight_decay, ">= 0")
        _check_number("alpha", self.alpha, ">= 0")
        _check_number("p", self.p, ">= 0")
        if self.p > 1:
            raise ValueError(
                f"p must be at most 1, the share of input channels kept, got {self.p!r}"
            )
        for epoch in self.milestones or ():
            _check_whole("milestones", epoch, minimum=1)
        if self.milestones is not None and RECIPES[self.recipe].milestones is None:
            raise ValueError(f"recipe {self.recipe!r} has no milestones, got {self.milestones!r}")

    @property
    def settings(self) -> Recipe:
        """The recipe, with what this run sets otherwise; short runs drop at the same shares."""
        recipe = RECIPES[self.recipe]
        own = {
            name: getattr(self, name)
            for name in ("optimizer", "learning_rate", "momentum", "weight_decay", "milestones")
            if getattr(self, name) is not None
        }
        if recipe.milestones is not None and self.milestones is None:
            scaled = {epoch * self.epochs // 200 for epoch in recipe.milestones}
            own["milestones"] = tuple(sorted(scaled - {0}))
        return dataclasses.replace(recipe, **own)

    def resolved(self) -> TrainConfig:
        """The same run with everything that its recipe decides filled in."""
        settings = self.settings
        return dataclasses.replace(
            self,
            optimizer=settings.optimizer,
            learning_rate=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            milestones=settings.milestones,
        )

    def without_folders(self) -> TrainConfig:
        """The same run for others to read: no folder of this machine is named in it."""
        weights = None if self.weights is None else Path(self.weights).name
        return dataclasses.replace(self, data=None, out=None, weights=weights)

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """The rate of one optimiser step, counted from 0 over the whole run.

        published: ``learning_rate * 0.1 ** (milestones reached)``, constant over an epoch.
        fast: linear from 0 to the peak over the first 15 % of all steps, then linear to 0.
        """
        settings = self.settings
        if settings.milestones is not None:
            reached = sum(step // steps_per_epoch >= epoch for epoch in settings.milestones)
            return settings.learning_rate * 0.1**reached
        steps = self.epochs * steps_per_epoch
        warm_up = 0.15 * steps
        rising, falling = (step + 1) / warm_up, (steps - step) / (steps - warm_up)
        return settings.learning_rate * min(rising, falling, 1.0)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of ``dataclasses.asdict``; names it does not know are an error."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise ValueError(f"unknown setting {name!r}, known are {', '.join(known)}")
        return cls(**{"optimizer": "sgd", **values})  # the only one before there were two

    def difference(self, other: TrainConfig) -> str | None:
        """The first setting that would give another result, None if there is no such."""
        mine, others = dataclasses.asdict(self.resolved()), dataclasses.asdict(other.resolved())
        return next(
            (name for name in mine if name not in ("data", "out") and mine[name] != others[name]),
            None,
        )


def _check_whole(name: str, value: object, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be a whole number >= {minimum}, got {value!r}")


def _check_number(name: str, value: object, rule: str) -> None:
    number = not isinstance(value, bool) and isinstance(value, (int, float))
    if not number or not math.isfinite(value) or value < 0 or (rule == "> 0" and value == 0):  # type: ignore[arg-type, operator]
        raise ValueError(f"{name} must be a number {rule}, got {value!r}")
