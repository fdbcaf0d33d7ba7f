"""What each form of a layer costs: multiply-accumulates, parameters or seconds."""

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ._inputs import Inputs


class Form(NamedTuple):
    """What a layer is: "dense", "u", "s" or "cp", and the channels in the middle of the latter."""

    kind: str
    rank: int | None = None

    def __str__(self) -> str:
        return self.kind if self.rank is None else f"{self.kind}:{self.rank}"

    @classmethod
    def parse(cls, text: str) -> "Form":
        """The form that prints as ``text``; ValueError for other texts."""
        kind, colon, rank = text.partition(":")
        if (kind in ("s", "cp") and rank.isdecimal() and int(rank)) or (
            kind in ("dense", "u") and not colon
        ):
            return cls(kind, int(rank) if rank else None)
        raise ValueError(
            f"a form needs to be 'dense', 'u', 's:CHANNELS' or 'cp:BLUEPRINTS', got {text!r}"
        )


DENSE = Form("dense")


class Geometry(NamedTuple):
    """The sizes on which the costs of a convolution depend."""

    inputs: int
    outputs: int
    kernel: int  # places that it sees of each input channel
    before: int  # places of its input
    behind: int  # places of its output
    has_bias: bool

    @classmethod
    def of(cls, conv: nn.Conv2d, before: tuple[int, ...], behind: tuple[int, ...]) -> "Geometry":
        """For inputs of shape ``before`` (M, H, W) and outputs of shape ``behind``."""
        height, width = conv.kernel_size
        return cls(
            conv.in_channels,
            conv.out_channels,
            height * width,
            before[1] * before[2],
            behind[1] * behind[2],
            conv.bias is not None,
        )

    def macs(self, form: Form) -> int:
        """Multiply-accumulates for one image, as torch's FlopCounterMode counts them."""
        return self._weights(form, self.before, self.behind)

    def parameters(self, form: Form) -> int:
        return self._weights(form, 1, 1) + self.outputs * self.has_bias

    def _weights(self, form: Form, before: int, behind: int) -> int:
        """Each weight as often as it is used."""
        kind, rank = form
        if kind == "dense":
            return self.inputs * self.outputs * self.kernel * behind
        if kind == "cp":
            assert rank is not None
            return rank * (self.inputs * before + (self.kernel + self.outputs) * behind)
        pointwise = self.inputs * self.outputs
        if rank is not None:
            pointwise = rank * (self.inputs + self.outputs)
        return pointwise * before + self.outputs * self.kernel * behind


@torch.no_grad()
def macs_by_layer(model: nn.Module, inputs: Inputs) -> dict[str, int]:
    """Multiply-accumulates for one image, of the model ("") and of all modules inside it."""
    with FlopCounterMode(display=False) as counter:
        inputs.first(1).map(torch.clone).run(model)
    counts = {name: sum(by_op.values()) // 2 for name, by_op in counter.get_flop_counts().items()}
    root = type(model).__name__
    inside = {n.removeprefix(f"{root}."): c for n, c in counts.items() if n.startswith(f"{root}.")}
    return {**inside, "": counts.get("Global", 0)}
