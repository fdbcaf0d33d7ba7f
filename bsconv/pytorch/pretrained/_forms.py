"""The forms that a layer can have, what they cost, and the layers themselves."""

from fractions import Fraction
from math import prod
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from .._tools.convs import Conv
from ..modules import BSConvCP, BSConvS, BSConvU


class Form(NamedTuple):
    """What a layer is: "dense", "u", "s" or "cp"; ``rank``: the middle channels of "s" and "cp"."""

    kind: str
    rank: int | None = None

    def __str__(self) -> str:
        return self.kind if self.rank is None else f"{self.kind}:{self.rank}"

    @classmethod
    def parse(cls, text: str) -> "Form":
        """The form that prints as ``text``; ValueError for other texts."""
        kind, colon, rank = str(text).partition(":")
        if (kind in ("s", "cp") and rank.isdecimal() and int(rank)) or (
            kind in ("dense", "u") and not colon
        ):
            return cls(kind, int(rank) if rank else None)
        raise ValueError(
            f"a form needs to be 'dense', 'u', 's:CHANNELS' or 'cp:BLUEPRINTS', got {text!r}"
        )

    @classmethod
    def of(cls, layer: nn.Module) -> "Form":
        """What the layer is."""
        if isinstance(layer, BSConvU):
            return cls("u")
        if isinstance(layer, BSConvS):
            return cls("s", layer.pw1.out_channels)
        return cls("cp", layer.pw1.out_channels) if isinstance(layer, BSConvCP) else DENSE

    def layer(self, conv: Conv) -> nn.Module:
        """A layer of this form in place of ``conv``, without weights; ``conv`` itself if dense."""
        if self.kind == "dense":
            return conv
        options: dict[str, Any] = {}
        layer_class: Any = {"u": BSConvU, "s": BSConvS, "cp": BSConvCP}[self.kind]
        if self.kind == "s":
            options = {"p": Fraction(self.rank or 0, conv.in_channels), "min_mid_channels": 1}
        elif self.kind == "cp":
            options = {"blueprints": self.rank}
        new: nn.Module = layer_class.like(conv, empty=True, **options)
        return new


DENSE = Form("dense")


class Geometry(NamedTuple):
    """The sizes on which the costs of a convolution depend."""

    inputs: int
    outputs: int
    kernel: int  # places that it sees of each input channel
    before: int  # places of its input
    behind: int  # places of its output
    has_bias: bool
    dimensions: int = 2

    @classmethod
    def of(cls, conv: Conv, before: tuple[int, ...], behind: tuple[int, ...]) -> "Geometry":
        """For inputs of shape ``before``, such as (M, H, W), and outputs of shape ``behind``."""
        places = prod(before[1:]), prod(behind[1:])
        channels, size = (conv.in_channels, conv.out_channels), conv.kernel_size
        return cls(*channels, prod(size), *places, conv.bias is not None, len(size))

    def macs(self, form: Form) -> int:
        """Multiply-accumulates for one image, as torch's FlopCounterMode counts them."""
        kind, rank = form
        if kind == "dense":
            return self.inputs * self.outputs * self.kernel * self.behind
        if kind == "cp":
            assert rank is not None
            return rank * (self.inputs * self.before + (self.kernel + self.outputs) * self.behind)
        pointwise = self.inputs * self.outputs
        if rank is not None:
            pointwise = rank * (self.inputs + self.outputs)
        return pointwise * self.before + self.outputs * self.kernel * self.behind

    def parameters(self, form: Form) -> int:
        weights = self._replace(before=1, behind=1).macs(form)  # each is used once
        return weights + self.outputs * self.has_bias


@torch.no_grad()
def put(parts: dict[str, Tensor], shift: Tensor, layer: nn.Module) -> None:
    """The parts into the layer, and the constant into its bias if it has one."""
    for name, part in parts.items():
        conv = cast(Conv, layer.get_submodule(name))  # or a Linear
        conv.weight.copy_(part.reshape(conv.weight.shape))
        if conv.bias is not None:
            conv.bias.copy_(shift)


def has_bias(layer: nn.Module) -> bool:
    return any(name.endswith("bias") for name, _ in layer.named_parameters())
