"""Questions about single layers: their arguments, padding, memory format, number of channels."""

import math
from collections.abc import Sequence
from fractions import Fraction
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor, nn

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
IntOrPair = int | tuple[int, int]
GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


def check_channels(layer: str, **counts: int) -> None:
    """Raises ValueError for a layer with fewer than one channel of some kind."""
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{layer} needs {name} >= 1, got {name}={count!r}")


def mid_channels(in_channels: int, p: float | Fraction, min_mid_channels: int = 4) -> int:
    """M' = min(M, max(min_mid_channels, ceil(p * M))) for M input channels (paper, section 3).

    Exact: a float ``p`` is read as the simple fraction it was meant to be, so p = 7/12 of 12
    channels is 7. Raises ValueError for a share or a lower limit that no BSConv-S can have.
    """
    check_channels("BSConv-S", in_channels=in_channels)
    if not isinstance(p, Real) or not 0 <= p <= 1:
        raise ValueError(
            f"BSConv-S needs 0 <= p <= 1, the share of input channels kept, got p={p!r}"
        )
    if not isinstance(min_mid_channels, int) or min_mid_channels < 0:
        raise ValueError(
            "BSConv-S needs min_mid_channels >= 0, the least number of channels in the middle, "
            f"got min_mid_channels={min_mid_channels!r}"
        )
    share = p if isinstance(p, Fraction) else Fraction(p).limit_denominator(10_000)
    return min(in_channels, max(min_mid_channels, math.ceil(share * in_channels), 1))


def size_pairs(kernel_sizes: Sequence[IntOrPair]) -> tuple[tuple[int, int], ...]:
    """Kernel sizes as pairs; ValueError for what is not a sequence of sizes."""
    rule = "kernel_sizes needs a sequence of ints or pairs of ints, each at least 1"
    if isinstance(kernel_sizes, (int, str)):
        raise ValueError(f"{rule}, got kernel_sizes={kernel_sizes!r}")
    pairs = []
    for size in kernel_sizes:
        pair = (size, size) if isinstance(size, int) else tuple(size)
        if len(pair) != 2 or not all(isinstance(side, int) and side >= 1 for side in pair):
            raise ValueError(f"{rule}, got kernel_sizes={kernel_sizes!r}")
        pairs.append(pair)
    return tuple(pairs)


def conv_arguments(conv: nn.Conv2d) -> dict[str, Any]:
    """The geometry of ``conv``, and where its weights live, as keyword arguments."""
    geometry = {name: getattr(conv, name) for name in GEOMETRY}
    place = {"device": conv.weight.device, "dtype": conv.weight.dtype}
    return geometry | place | {"bias": conv.bias is not None}


def memory_format_of(weight: Tensor) -> torch.memory_format:
    """Read from the strides, since is_contiguous can't tell the two apart where a side is 1."""
    contiguous = torch.empty(weight.shape, device="meta")
    channels_last = contiguous.to(memory_format=torch.channels_last)
    if weight.stride() == channels_last.stride() != contiguous.stride():
        return torch.channels_last
    return torch.contiguous_format


def pads_with_zeros(conv: nn.Conv2d) -> bool:
    if conv.padding_mode != "zeros" or conv.padding == "valid":
        return False
    if conv.padding == "same":
        return any(d * (k - 1) > 0 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    return any(padding != 0 for padding in conv.padding)
