"""What a network's images are moved and scaled by, channel by channel. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .rules import MEAN, STD

if TYPE_CHECKING:
    from torch import Tensor

# mean and standard deviation of the pixels of each channel, in 0 ... 1
STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


@dataclass(frozen=True)
class Normalization:
    """``(images - mean) / std`` for each of the three channels of images in [0, 1].

    ValueError unless there are three of each, ``mean`` in [0, 1] and ``std`` in (0, 1].

    >>> Normalization.from_options("imagenet").mean
    (0.485, 0.456, 0.406)
    """

    mean: tuple[float, ...] = STATISTICS["none"][0]
    std: tuple[float, ...] = STATISTICS["none"][1]

    def __post_init__(self) -> None:
        for name, rule in (("mean", MEAN), ("std", STD)):
            value = getattr(self, name)
            value = tuple(value) if isinstance(value, list) else value
            if not rule.holds(value):
                raise ValueError(f"{name} needs {rule.text}, got {value!r}")
            object.__setattr__(self, name, tuple(map(float, value)))

    @classmethod
    def from_options(
        cls,
        normalize: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> Normalization:
        """The one called ``normalize``, or that of ``mean`` and ``std``; by default none."""
        if mean is None and std is None:
            return cls(*STATISTICS[normalize or "none"])
        if mean is None or std is None:
            given, lacking = ("mean", "std") if std is None else ("std", "mean")
            raise ValueError(f"{given} needs {lacking} with it, got {lacking}=None")
        if normalize is not None:
            rule = "normalize needs to stand without mean and std"
            raise ValueError(f"{rule}, got {normalize!r} with {mean=}")
        return cls(tuple(mean), tuple(std))

    def apply(self, images: Tensor) -> Tensor:
        """Float images of shape (N, 3, H, W) or (3, H, W), as the network takes them."""
        if self == Normalization():
            return images
        if images.dim() < 3 or images.shape[-3] != 3 or not images.is_floating_point():
            got = f"got {images.dtype} of shape {tuple(images.shape)}"
            raise ValueError(f"normalisation needs float images of 3 channels, {got}")
        mean, std = (images.new_tensor(each)[:, None, None] for each in (self.mean, self.std))
        return (images - mean) / std

    def __str__(self) -> str:
        own = (self.mean, self.std)
        names = (name for name, known in STATISTICS.items() if own == known)
        return next(names, f"mean, std {own}")
