"""Numbers chosen to hurt, the same for both precisions: each is one of float32."""

from __future__ import annotations

import torch
from torch import Tensor

# what each kind is, as the page tells it
KINDS = {
    "ordinary": "standard normal",
    "tiny": "1e-30 times standard normal",
    "huge": "1e30 times standard normal",
    "largest": "up to the largest number of float32",
    "subnormal": "1e-40 times standard normal",
    "zero": "all zero",
    "constant": "all 0.1",
    "rank-deficient": "channels that are multiples of two",
    "mixed scales": "standard normal times 1e-9 to 1e9, filter by filter or channel by channel",
    "one channel": "standard normal",
    "many channels": "standard normal",
}
FEW = 8
_SCALES = {"tiny": 1e-30, "huge": 1e30, "subnormal": 1e-40}


def channels(kind: str, many: int) -> int:
    """How many channels a layer has on both sides."""
    return {"one channel": 1, "many channels": many}.get(kind, FEW)


def numbers(kind: str, *shape: int, seed: int = 0, mixed: int = 0) -> Tensor:
    """Numbers of that kind, (filters or images, channels, ...), in float32.

    Scales are mixed along the dimension ``mixed``: filters of a kernel, channels of images.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(*shape, generator=generator)
    if kind == "largest":
        return drawn.clamp(-1, 1) * torch.finfo(torch.float32).max
    if kind == "zero":
        return torch.zeros(shape)
    if kind == "constant":
        return torch.full(shape, 0.1)
    if kind == "rank-deficient":
        mixing = torch.randn(shape[1], min(2, shape[1]), generator=generator)
        return torch.einsum("mr,nr...->nm...", mixing, drawn[:, : mixing.shape[1]])
    if kind == "mixed scales":
        exponents = torch.linspace(-9, 9, shape[mixed])
        return drawn * 10 ** exponents.reshape(-1, *[1] * (len(shape) - 1 - mixed))
    return drawn * _SCALES.get(kind, 1.0)
