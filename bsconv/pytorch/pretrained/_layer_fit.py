"""Fits the layers of a BSConv network in turn, so that it computes what a dense network computes.

Each layer sees what the new network feeds it; wanted is what the dense one has where the output
lands, be it behind a shortcut; and errors count as far as they reach the outputs.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._tools.numerics import check_finite
from ..decomposition import BlueprintFactors, SubspaceFactors, compose
from ..modules import BSConvS, BSConvU
from ._least_squares import ROUNDS, Moments, Patches, constant, fit_blueprints, fit_subspace
from ._sensitivity import sensitivities
from ._tracing import Call, Landing, Point, capture

RECTIFIED_ROUNDS = 6
Factors = BlueprintFactors | SubspaceFactors


class _Samples(NamedTuple):
    """Places of a layer in all images: what it sees, what is wanted, what is added behind it."""

    patches: Tensor  # (R, M*K*K)
    wanted: Tensor  # (R, N)
    added: Tensor  # (R, N)

    def total(self, kernel: Tensor, shift: Tensor) -> Tensor:
        """What arrives behind the layer, with what is added."""
        rows = kernel.flatten(1).to(self.patches)
        return self.patches @ rows.T + shift.to(self.patches) + self.added

    def rectified_target(self, kernel: Tensor, shift: Tensor) -> Tensor:
        """What is wanted; but below zero, where a ReLU removes it, what is there already."""
        there = self.total(kernel, shift).clamp_max(0)
        return self.wanted.where(self.wanted > 0, there)

    def error(self, kernel: Tensor, shift: Tensor, *, rectified: bool) -> float:
        """The squared error relative to the variance of what is wanted, behind the ReLU if any."""
        # squares of what float32 holds may be beyond it
        total, wanted = self.total(kernel, shift).double(), self.wanted.double()
        if rectified:
            total, wanted = total.relu(), wanted.relu()
        variance = float(wanted.var(dim=0, correction=0).sum())
        return float((total - wanted).square().mean(0).sum()) / variance if variance > 0 else 0.0


class LayerFit:
    """Fits the layers of ``student`` in turn, to what ``teacher`` computes from ``images``."""

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        images: Tensor,
        landings: Mapping[str, Landing],
        *,
        batch_size: int,
        positions: int,
    ) -> None:
        self.teacher = teacher
        self.student = student
        self.landings = landings
        self.batches = torch.split(images, batch_size)
        self.positions = positions
        self.places: dict[int, list[Tensor]] = {}  # by the size of maps, for each batch
        arrivals = {_arrival(name, landing) for name, landing in landings.items()}
        self.metrics = sensitivities(teacher, images, arrivals, batch_size)
        self.wanted = self._wanted(arrivals)

    def layer(self, name: str) -> float:
        """Puts the best factors into the layer; returns its relative squared error.

        A layer that sees nothing but constants keeps the closest weights: any would do. Raises
        ValueError where numbers at the layer are not finite.
        """
        landing = self.landings[name]
        layer = cast(BSConvU | BSConvS, self.student.get_submodule(name))
        samples = self._samples(name, landing)
        metric = self.metrics.get(_arrival(name, landing))
        has_constant = bool(landing.norm) or layer.dw.bias is not None
        patches = Patches(samples.patches, centered=has_constant)
        factors, target = factors_of(layer), samples.wanted
        for turn in range(1 + RECTIFIED_ROUNDS * landing.rectified):
            known = patches.moments(target - samples.added)
            # later on, filter by filter, so that they go on making up for one another
            rounds = ROUNDS if turn == 0 or metric is None else 0
            factors = _fit(known, factors, metric, rounds)
            shift = constant(known, dense(factors))
            if landing.rectified:
                target = samples.rectified_target(dense(factors), shift)
        _put(self.student, layer, factors, shift, known, landing.norm)
        return samples.error(dense(factors), shift, rectified=landing.rectified)

    def _wanted(self, arrivals: Collection[Point]) -> dict[Point, Tensor]:
        """What the teacher has at the chosen places (R, N); all layers in one pass over images."""
        parts: dict[Point, list[Tensor]] = {arrival: [] for arrival in arrivals}
        for number, batch in enumerate(self.batches):
            part = partial(self._rows, batch=number)
            rows = capture(self.teacher, batch, arrivals, part)
            for arrival, found in rows.items():
                parts[arrival].append(found)
        return {arrival: torch.cat(found) for arrival, found in parts.items()}

    def _rows(self, maps: Tensor, batch: int) -> Tensor:
        """The chosen places of maps (B, N, ...) of that batch, (R, N)."""
        maps = maps.flatten(2)
        return maps[:, :, self._chosen(maps.shape[2])[batch]].mT.flatten(0, 1)

    def _chosen(self, size: int) -> list[Tensor]:
        """Random places of maps of that size, others in each batch, the same at all layers."""
        if size not in self.places:
            generator = torch.Generator().manual_seed(0)
            drawn = (torch.randperm(size, generator=generator) for _ in self.batches)
            self.places[size] = [order[: self.positions] for order in drawn]
        return self.places[size]

    def _samples(self, name: str, landing: Landing) -> _Samples:
        seen = Point(Call(name, 0), "input")
        output = Point(Call(landing.norm or name, 0), "output")
        arrival = _arrival(name, landing)
        conv = cast(nn.Conv2d, self.teacher.get_submodule(name))
        parts = []
        for number, batch in enumerate(self.batches):
            there = capture(self.student, batch, {seen, output, arrival})
            added = there[arrival] - there[output]
            parts.append([self._rows(m, number) for m in (_patches(conv, there[seen]), added)])
        patches, added = (torch.cat(part) for part in zip(*parts, strict=True))
        samples = _Samples(patches, self.wanted[arrival], added)
        check_finite(f"'{name}'", *samples)
        return samples


def _arrival(name: str, landing: Landing) -> Point:
    """Where the outputs of the two networks are compared."""
    if landing.call:
        return Point(landing.call, "input")
    return Point(Call(landing.norm or name, 0), "output")


def _patches(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """What each output of ``conv`` sees, (B, M*Kh*Kw, positions)."""
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    padded = F.pad(images, conv._reversed_padding_repeated_twice, mode=mode)
    return F.unfold(padded, conv.kernel_size, dilation=conv.dilation, stride=conv.stride)


def factors_of(layer: BSConvU | BSConvS) -> Factors:
    """What the layer holds, in float64."""
    blueprints = layer.dw.weight[:, 0].detach().double()
    if isinstance(layer, BSConvU):
        return BlueprintFactors(layer.pw.weight.detach().flatten(1).double(), blueprints)
    mixing, basis = (pw.weight.detach().flatten(1).double() for pw in (layer.pw2, layer.pw1))
    return SubspaceFactors(mixing, basis, blueprints)


def _fit(known: Moments, start: Factors, metric: Tensor | None, rounds: int) -> Factors:
    if not known.patches.any():
        return start
    if isinstance(start, BlueprintFactors):
        return fit_blueprints(known, start, metric, rounds)
    return fit_subspace(known, start, metric, rounds)


def dense(factors: Factors) -> Tensor:
    """The dense kernel (N, M, Kh, Kw) of the factors."""
    if isinstance(factors, BlueprintFactors):
        return compose(factors.weights, factors.blueprints)
    return compose(factors.mixing @ factors.basis, factors.blueprints)


@torch.no_grad()
def _put(
    student: nn.Module,
    layer: BSConvU | BSConvS,
    factors: Factors,
    shift: Tensor,
    known: Moments,
    norm_name: str,
) -> None:
    """The factors into the layer, the constant into the BatchNorm behind it or into its bias."""
    if isinstance(layer, BSConvU):
        layer.pw.weight.copy_(cast(BlueprintFactors, factors).weights[:, :, None, None])
    else:
        subspace = cast(SubspaceFactors, factors)
        layer.pw1.weight.copy_(subspace.basis[:, :, None, None])
        layer.pw2.weight.copy_(subspace.mixing[:, :, None, None])
    layer.dw.weight.copy_(factors.blueprints[:, None])
    if layer.dw.bias is not None:
        layer.dw.bias.copy_(torch.zeros_like(shift) if norm_name else shift)
    if norm_name:
        norm = cast(nn.BatchNorm2d, student.get_submodule(norm_name))
        rows = dense(factors).flatten(1)
        mean, variance = rows @ known.patch_mean, ((rows @ known.patches) * rows).sum(1)
        # whatever it is, the weight makes up for it, but it has to be a number of its dtype
        variance = variance.clamp_max(torch.finfo(norm.weight.dtype).max)
        cast(Tensor, norm.running_mean).copy_(mean)
        cast(Tensor, norm.running_var).copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(shift + mean)
