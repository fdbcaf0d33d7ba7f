"""The forms that a layer can have, and what they cost."""

import re
from fractions import Fraction
from math import prod
from typing import Any, NamedTuple, cast

from torch import nn

from .._tools.convs import Conv
from ..modules import BSConvCP, BSConvS, BSConvU

CLASSES: dict[str, Any] = {"u": BSConvU, "s": BSConvS, "cp": BSConvCP}


class Form(NamedTuple):
    """What a layer is: "dense", "u", "s" or "cp"; ``rank``: the middle channels of "s" and "cp"."""

    kind: str
    rank: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.rank}" if self.rank else self.kind

    @classmethod
    def parse(cls, text: str) -> "Form":
        if not re.fullmatch(r"dense|u|(s|cp):0*[1-9][0-9]*", str(text)):
            known = "'dense', 'u', 's:CHANNELS' or 'cp:BLUEPRINTS'"
            raise ValueError(f"a form needs to be {known}, got {text!r}")
        kind, _, rank = text.partition(":")
        return cls(kind, int(rank or 0))

    @classmethod
    def of(cls, layer: nn.Module) -> "Form":
        kind = next((kind for kind, one in CLASSES.items() if isinstance(layer, one)), "dense")
        return cls(kind, cast(Any, layer).pw1.out_channels if kind in ("s", "cp") else 0)

    def layer(self, conv: Conv) -> nn.Module:
        """A layer of this form in place of ``conv``, without weights; ``conv`` itself if dense."""
        if self.kind == "dense":
            return conv
        share = Fraction(self.rank, conv.in_channels)
        own: Any = {"s": {"p": share, "min_mid_channels": 1}, "cp": {"blueprints": self.rank}}
        new: nn.Module = CLASSES[self.kind].like(conv, empty=True, **own.get(self.kind, {}))
        return new

    def macs(self, conv: Conv, before: int = 1, behind: int = 1) -> int:
        """For so many places of input and output, in place of ``conv``; for one: the weights."""
        inputs, outputs, kernel = conv.in_channels, conv.out_channels, prod(conv.kernel_size)
        depthwise = outputs * kernel * behind
        return {
            "dense": inputs * depthwise,
            "u": inputs * outputs * before + depthwise,
            "s": self.rank * (inputs + outputs) * before + depthwise,
            "cp": self.rank * (inputs * before + (kernel + outputs) * behind),
        }[self.kind]


DENSE = Form("dense")
