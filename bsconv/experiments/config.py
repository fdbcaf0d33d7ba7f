"""What a training run is: one frozen dataclass that checks itself. Imports no torch.

Each setting stands in it once, with its default, its rule and its help: the checks and the options
of `bsconv train` are made of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import rules
from .normalization import STATISTICS, Normalization
from .rules import FOLDER_SIZE, absolute_name, replaced_by, setting

# what the recipe decides where the run does not
OF_RECIPE = ("optimizer", "learning_rate", "momentum", "weight_decay", "milestones", "batch_size")


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


@dataclass(frozen=True)
class TrainConfig:
    """All that decides the result of a run; the defaults are the published CIFAR recipe.

    Those of ``OF_RECIPE`` are the recipe's where they are None. ``weights`` are read once, when the
    run begins; ``compile``, ``precision`` and ``plan`` are chosen then where they are left open.
    ValueError for a value that breaks its rule.
    """

    model: str = setting("cifar_resnet20_bsconvu", rules.MODEL)
    dataset: str = setting(
        "cifar10",
        rules.text("a name", "NAME|FOLDER"),
        "cifar10 (default), cifar100, synthetic, or a folder of images by class",
    )
    data: str | None = setting(
        None, rules.FOLDER, "where the archives lie (default $BSCONV_DATA, else data)"
    )
    out: str | None = setting(None, rules.FOLDER, "folder of the run (default: nothing is kept)")
    bsconv: str | None = setting(None, rules.one_of("u", "s"))
    p: float = setting(0.25, rules.number(">= 0 and <= 1"))
    with_bn: bool = setting(False, rules.flag("store_true"))
    init: str = setting(
        "default",
        rules.one_of("default", "matched", "published"),  # the last is the first, an older word
        "first weights of BSConv layers: PyTorch's (default), or of a dense one's variance",
    )
    weights: str | None = setting(
        None,
        rules.TRAINED,
        "start from these weights (.safetensors, .pt, .pth or the --out of a run) instead, "
        "such as what `bsconv project` wrote; they must fit the model, --bsconv included",
    )
    pretrained: str | None = setting(
        None,
        rules.NAME,
        "start from the weights of the package, such as cifar10, or of MODEL's library: DEFAULT",
    )
    new_head: bool = setting(
        False,
        rules.flag("store_true"),
        "a fresh classifier in place of the one of these weights, for the classes of --dataset; "
        "with --bsconv, weights of the dense network are projected",
    )
    freeze: bool = setting(False, rules.flag("store_true"), "train the classifier alone")
    teacher: str | None = setting(
        None, rules.TRAINED, "learn the answers of this trained network (a file as for --weights)"
    )
    teacher_model: str | None = setting(
        None,
        rules.MODEL,
        "the teacher's architecture (default: what the file of --teacher says); without --teacher, "
        "with the weights that the package has of it",
    )
    label_weight: float = setting(
        0.0,
        rules.number(">= 0 and <= 1"),
        "share of the labels in the loss of a student (default {}: its teacher's answers alone)",
    )
    epochs: int = setting(200, rules.whole(1), "default {}")
    batch_size: int | None = setting(None, rules.whole(1), "default 128, finetune 64")
    seed: int = setting(0, rules.whole(0, 2**63 - 1, "S"), "default {}")
    device: str = setting("auto", rules.text("a name", "DEVICE"), "cpu, cuda, ... (default {})")
    recipe: str = setting(
        "published",
        rules.one_of(*RECIPES),
        "published (default), fast: one cycle, or finetune: a low one, BatchNorm fixed",
    )
    optimizer: str | None = setting(
        None,
        rules.one_of("sgd", "muon", "adam"),
        "sgd, adam (default of finetune), or muon (default of fast): orthogonal steps for the "
        "weights that mix channels",
    )
    learning_rate: float | None = setting(
        None, rules.number("> 0", "RATE"), "default 0.1, the peak of fast 0.3"
    )
    momentum: float | None = setting(None, rules.number(">= 0 and < 1", "M"), "default 0.9")
    weight_decay: float | None = setting(
        None, rules.number(">= 0", "W"), "default 1e-4, fast 5e-4 on weights only"
    )
    milestones: tuple[int, ...] | None = setting(
        None, rules.EPOCHS, "rate / 10 after these epochs (default 1/2, 3/4 and 9/10 of all)"
    )
    alpha: float = setting(
        0.1,
        rules.number(">= 0", "A"),
        "weight of the BSConv-S penalty in the training loss (default {})",
    )
    crop_padding: int = setting(4, rules.PIXELS, "default {}")
    flip: bool = setting(True, rules.flag("store_false"), "no random flips")
    cutout: int = setting(0, rules.PIXELS, "side of the hole (default {}: none)")
    train_limit: int | None = setting(None, rules.whole(1), "the first N images only")
    test_limit: int | None = setting(None, rules.whole(1), "the first N images only")
    image_size: int | None = setting(
        None,
        rules.whole(1, 4096, "PIXELS"),
        "side of the images (default: as the weights want it, else 32 for a folder)",
    )
    resize: str | None = setting(
        None,
        rules.RESIZE,
        "of a folder: squash (default), shorter: the middle of the image, or how many PIXELS the "
        "shorter side has before; with a filter other than bilinear as 256,bicubic",
    )
    split: float | None = setting(
        None,
        rules.number("> 0 and < 1", "SHARE"),
        "of each class to test in a folder that is not divided (default 0.2)",
    )
    normalize: str | None = setting(
        None,
        rules.one_of(*STATISTICS),
        "what images are normalised by (default: as the weights want it, else none)",
    )
    mean: tuple[float, ...] | None = setting(
        None, rules.MEAN, "normalise by this mean and --std instead, of images in 0 ... 1"
    )
    std: tuple[float, ...] | None = setting(None, rules.STD, "the standard deviation for --mean")
    compile: bool | None = setting(
        None,
        rules.flag(argparse.BooleanOptionalAction),
        "train through torch.compile (default: in long runs, where a compiler is at hand)",
    )
    plan: str = setting(
        "auto",
        rules.one_of("factored", "merged", "auto"),
        "how BSConv layers are computed: factored, merged into dense convolutions on the way, "
        "or auto (default): factored in short runs, in long ones the faster for each layer",
    )
    precision: str = setting(
        "auto",
        rules.one_of("float32", "bfloat16", "auto"),
        "of the training steps: float32, bfloat16 by autocast, or auto (default): float32 in "
        "short runs, whichever is faster here in long ones",
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            name, rule, value = field.name, field.metadata["rule"], getattr(self, field.name)
            if isinstance(value, Path):
                value = str(value)
            elif (name, value) == ("init", "published"):
                value = "default"
            elif isinstance(value, list):  # out of JSON
                value = tuple(value)
            if isinstance(value, str) and name in ("model", "teacher_model"):
                value = absolute_name(value)
            elif value and isinstance(value, str) and name in ("out", "weights", "teacher"):
                value = str(Path(os.path.expanduser(value)))  # ./x and x are one file
            if not rule.holds(value):
                raise ValueError(f"{name} needs {rule.text}, got {value!r}")
            object.__setattr__(self, name, value)
        if self.milestones is not None and RECIPES[self.recipe].milestones is None:
            got = f"got {self.milestones!r} with recipe={self.recipe!r}"
            raise ValueError(f"milestones needs a recipe that has some, {got}")
        Normalization.from_options(self.normalize, self.mean, self.std)  # refuses half of one

    @property
    def network(self) -> str:
        """The model, and what its convolutions are replaced by, if they are."""
        name = Path(self.model).name
        form = self.bsconv and replaced_by(self.bsconv, self.p, self.with_bn)
        return f"{name} as {form}" if form else name

    @property
    def normalization(self) -> Normalization:
        return Normalization.from_options(self.normalize, self.mean, self.std)

    def images_as(self, other: TrainConfig) -> TrainConfig:
        """The same run with images made as those of ``other``, where it does not say how itself."""
        own: dict[str, Any] = {"image_size": self.image_size or other.image_size}
        own["resize"] = self.resize or other.resize_to(self.image_size)
        if self.normalize is None and self.mean is None:
            own |= {name: getattr(other, name) for name in ("normalize", "mean", "std")}
        return dataclasses.replace(self, **own)

    def resize_to(self, side: int | None) -> str | None:
        """``resize`` for images of another ``side``: a number of pixels changes in proportion."""
        if side is None or self.resize is None:
            return self.resize
        times = side / (self.image_size or FOLDER_SIZE)
        return re.sub("^[0-9]+", lambda found: str(round(int(found[0]) * times)), self.resize)

    @property
    def settings(self) -> Recipe:
        """The recipe, with what this run sets otherwise; short runs drop at the same shares."""
        recipe = RECIPES[self.recipe]
        own = {name: getattr(self, name) for name in OF_RECIPE if getattr(self, name) is not None}
        if recipe.milestones is not None and self.milestones is None:
            scaled = {epoch * self.epochs // 200 for epoch in recipe.milestones}
            own["milestones"] = tuple(sorted(scaled - {0}))
        return dataclasses.replace(recipe, **own)

    def resolved(self) -> TrainConfig:
        """The same run with everything that its recipe decides filled in."""
        settings = self.settings
        return dataclasses.replace(self, **{name: getattr(settings, name) for name in OF_RECIPE})

    def without_folders(self) -> TrainConfig:
        """The same run for others to read: no folder of this machine is named in it."""
        weights, teacher = (path and Path(path).name for path in (self.weights, self.teacher))
        return dataclasses.replace(self, data=None, out=None, weights=weights, teacher=teacher)

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """The rate of one optimiser step, counted from 0 over the whole run.

        published: ``learning_rate * 0.1 ** (milestones reached)``, constant over an epoch.
        Others: linear from 0 to the peak over the first 15 % of all steps, then linear to 0.
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
        """The inverse of ``dataclasses.asdict``; names it does not know are a TypeError."""
        return cls(**{"optimizer": "sgd", **values})  # the only one before there were two

    def difference(self, other: TrainConfig) -> str | None:
        """The first setting that would give another result; None if all give the same."""
        mine, others = (
            {**dataclasses.asdict(one.resolved()), "normalize": one.normalization}
            for one in (self, other)
        )
        free = ["data", "out", "mean", "std"]  # "normalize" stands for the last two as well
        if not {self.dataset, other.dataset} & {*rules.DATASETS}:
            free.append("dataset")  # a folder, which may have moved: its checksum is compared
        return next((n for n in mine if n not in free and mine[n] != others[n]), None)
