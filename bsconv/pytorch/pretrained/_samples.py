"""A few places of all images: what a convolution sees there, and what is wanted."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._tools.convs import Conv

PLACES = 40_000  # that are looked at in a layer, in all images together
FEWEST_POSITIONS = 64  # in each of them


class Sampler(NamedTuple):
    """Random places of maps: new ones in each group of images, the same in all maps of a size."""

    group_size: int
    positions: int | None = None  # in each image; None: as many as make PLACES in all

    def rows(self, layer: Conv | nn.Linear, maps: Tensor) -> Tensor:
        """Places of maps (B, N, ...), of a Linear (B, ..., N), as rows (R, N)."""
        maps = maps.movedim(-1, 1) if isinstance(layer, nn.Linear) else maps
        return self._chosen(maps, 1, lambda group: group.reshape(*group.shape[:2], -1))

    def patches(self, conv: Conv | nn.Linear, images: Tensor) -> Tensor:
        """What ``conv`` sees at the same places of its output, as rows (R, M*Kh*Kw)."""
        if isinstance(conv, nn.Linear):
            return self.rows(conv, images)
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        spans = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]

        def windows(group: Tensor) -> Tensor:
            seen = F.pad(group, conv._reversed_padding_repeated_twice, mode=mode)
            for axis, span in enumerate(spans):
                seen = seen.unfold(axis + 2, span, conv.stride[axis])
            steps: Any = (..., *(slice(None, None, step) for step in conv.dilation))
            return seen[steps]

        return self._chosen(images, len(spans), windows)

    def _chosen(self, maps: Tensor, dimensions: int, windows: Callable[[Tensor], Tensor]) -> Tensor:
        """Rows of windows (B, N, *places, ...), which are views."""
        positions = self.positions or max(FEWEST_POSITIONS, math.ceil(PLACES / len(maps)))
        generator = torch.Generator().manual_seed(0)
        found = []
        for group in torch.split(maps, self.group_size):
            seen = windows(group)
            sides = seen.shape[2 : 2 + dimensions]
            places = torch.randperm(sides.numel(), generator=generator)[:positions]
            at = torch.unravel_index(places.to(maps.device), sides)
            index: Any = (slice(None), slice(None), *at)
            rows = seen[index].transpose(1, 2).flatten(2).flatten(0, 1)
            found.append(rows.to(torch.promote_types(rows.dtype, torch.float32)))
        return torch.cat(found)


def check_finite(where: str, *tensors: Tensor) -> None:
    if not all(tensor.isfinite().all() for tensor in tensors):
        rule = "images needs numbers for which the model stays finite"
        raise ValueError(f"{rule}, got NaN or infinity at {where}")
