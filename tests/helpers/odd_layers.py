"""Containers and layers as people write them, for the models of model_strategies.py.

At the top of a module, so that they can be pickled.
"""

from collections import Counter
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from bsconv.pytorch import BSConvS_ModelRegLossMixin

CALLS = Counter[str]()  # of the hooks below

# ------------------------------------------------------------------------------------- containers


class Steps(nn.Module):
    """One layer after the other, and a place that stays empty."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.register_module("shortcut", None)

    def forward(self, images: Tensor) -> Tensor:
        for layer in self.layers:
            images = layer(images)
        return images


class Branches(nn.Module):
    """Side by side under names, some of them strange."""

    NAMES = ("left", "stage[1]", "a b")

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.by_name = nn.ModuleDict(dict(zip(self.NAMES, layers, strict=False)))

    def forward(self, images: Tensor) -> Tensor:
        first, *others = (layer(images) for layer in self.by_name.values())
        return sum((out for out in others if out.shape == first.shape), first)


class Residual(Steps):
    def forward(self, images: Tensor) -> Tensor:
        out = super().forward(images)
        return out + images if out.shape == images.shape else out


class Listed(Steps):
    """Calls its layers by a list that no module knows of."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__(layers)
        self.calls = [("layer", layer) for layer in layers]

    def forward(self, images: Tensor) -> Tensor:
        for _, layer in self.calls:
            images = layer(images)
        return images


class SealedError(Exception):
    """What a sealed parent says to one who sets an attribute."""


class Sealed(nn.Sequential):
    """Takes no other layers, once it is made."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__(*layers)
        self.sealed = True

    def __setattr__(self, name: str, value: Any) -> None:
        if "sealed" in vars(self) and name != "training":
            raise SealedError(f"sealed, takes no {name}")
        super().__setattr__(name, value)


class WithRegLoss(Steps):
    def reg_loss(self) -> float:
        return 0.0


class WithMixin(BSConvS_ModelRegLossMixin, Steps):
    pass


# -------------------------------------------------------------------------------------- odd layers


class Standardized(nn.Conv2d):
    """A convolution that computes something else."""

    def forward(self, images: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return self._conv_forward(images, weight, self.bias)


class Tied(nn.Module):
    """Uses the weight of a convolution, but is none."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.kernel = conv.weight

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.conv2d(images, self.kernel, padding="same")


class OtherDimensions(nn.Module):
    """A convolution over one or three dimensions, of images in two."""

    def __init__(self, conv: nn.Conv1d | nn.Conv3d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, images: Tensor) -> Tensor:
        if len(self.conv.kernel_size) == 3:
            return self.conv(images[:, :, None])[:, :, 0]
        return self.conv(images.flatten(2)).unflatten(2, images.shape[2:])


class Patched:
    """In the place of a forward method."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv

    def __call__(self, images: Tensor) -> Tensor:
        return -nn.Conv2d.forward(self.conv, images)


def count(kind: str, *args: Any, **kwargs: Any) -> None:
    CALLS[kind] += 1


COUNT_BEFORE, COUNT_AFTER, COUNT_BACKWARD = (
    partial(count, kind) for kind in ("forward_pre", "forward", "backward")
)


def keep(*args: Any) -> None:
    """A hook on a state dict or a parameter."""


class Registry:
    """A class in which models of other files keep their layers."""

    items: ClassVar[dict[str, Any]] = {}
