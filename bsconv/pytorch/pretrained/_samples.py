"""A few places of all images: what a convolution sees there, and what is wanted of it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


class Sampler:
    """Random places of maps, others in each group of images, the same at all maps of a size."""

    def __init__(self, group_size: int, positions: int) -> None:
        self.group_size = group_size
        self.positions = positions

    def rows(self, maps: Tensor) -> Tensor:
        """The chosen places of maps (B, N, H, W), as rows (R, N)."""
        groups = torch.split(maps.flatten(2), self.group_size)
        places = self._places(maps[0, 0].numel(), len(groups))
        return torch.cat(
            [
                group[:, :, chosen].mT.flatten(0, 1)
                for group, chosen in zip(groups, places, strict=True)
            ]
        )

    def patches(self, conv: nn.Conv2d, images: Tensor) -> Tensor:
        """What ``conv`` sees at the same places of its output, as rows (R, M*Kh*Kw)."""
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        found = []
        for number, group in enumerate(groups := torch.split(images, self.group_size)):
            padded = F.pad(group, conv._reversed_padding_repeated_twice, mode=mode)
            height, width = (
                (size - d * (k - 1) - 1) // s + 1
                for size, d, k, s in zip(
                    padded.shape[2:], conv.dilation, conv.kernel_size, conv.stride, strict=True
                )
            )
            chosen = self._places(height * width, len(groups))[number].to(images.device)
            top, left = chosen // width * conv.stride[0], chosen % width * conv.stride[1]
            down, right = (
                torch.arange(k, device=images.device) * d
                for k, d in zip(conv.kernel_size, conv.dilation, strict=True)
            )
            inside = (down[:, None] * padded.shape[3] + right).flatten()
            index = (top * padded.shape[3] + left)[:, None] + inside
            seen = padded.flatten(2)[:, :, index.flatten()]
            seen = seen.view(*padded.shape[:2], *index.shape)
            found.append(seen.transpose(1, 2).flatten(2).flatten(0, 1))
        return torch.cat(found)

    def _places(self, size: int, groups: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        drawn = (torch.randperm(size, generator=generator) for _ in range(groups))
        return [order[: self.positions] for order in drawn]


class Samples(NamedTuple):
    """Places of a layer in all images: what it sees, what is wanted, what is added behind it."""

    patches: Tensor  # (R, M*K*K)
    wanted: Tensor  # (R, N)
    added: Tensor  # (R, N)
    activation: Activation | None  # what alone sees the sum

    def total(self, kernel: Tensor, shift: Tensor) -> Tensor:
        """What arrives behind the layer, with what is added."""
        rows = kernel.flatten(1).to(self.patches)
        return self.patches @ rows.T + shift.to(self.patches) + self.added

    def target(self, kernel: Tensor, shift: Tensor) -> Tensor:
        """What is wanted; but below zero only as far as the activation lets the error through.

        Behind a ReLU, what is there already below zero stays; what is above comes down to zero.
        """
        total = self.total(kernel, shift)
        through = total - (self._active(total) - self._active(self.wanted))
        return self.wanted.where(self.wanted > 0, through)

    def error(self, kernel: Tensor, shift: Tensor) -> float:
        """The squared error relative to the variance of what is wanted, behind the activation."""
        # squares of what float32 holds may be beyond it
        total = self._active(self.total(kernel, shift)).double()
        wanted = self._active(self.wanted).double()
        variance = float(wanted.var(dim=0, correction=0).sum())
        return float((total - wanted).square().mean(0).sum()) / variance if variance > 0 else 0.0

    def _active(self, rows: Tensor) -> Tensor:
        if self.activation is None:
            return rows
        return self.activation(rows[:, :, None, None])[:, :, 0, 0]
