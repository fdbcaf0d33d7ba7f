"""A kernel from a few patterns: the closest one of rank r, which is BSConv-U for r = 1."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...experiments import plotting
from ._controls import Control, Range
from ._layers import Layers, Source
from ._panel import Panel, Values, View, paragraph


class RankFit(NamedTuple):
    """``kernel`` (M, Kh, Kw) is the closest of that rank, a sum of ``rank`` blueprint kernels.

    ``kept`` is the share of the energy that it keeps, ``numbers`` how many it is made of:
    r (M + Kh Kw).
    """

    kernel: Tensor
    kept: float
    numbers: int


def rank_fit(kernel: Tensor, rank: int) -> RankFit:
    """The closest kernel whose slices are made of ``rank`` patterns (Eckart-Young).

    ``kernel`` has shape (M, Kh, Kw). ValueError unless 1 <= rank <= min(M, Kh Kw).
    """
    if kernel.dim() != 3:
        raise ValueError(f"kernel needs shape (M, Kh, Kw), got shape {tuple(kernel.shape)}")
    slices = kernel.double().flatten(1)
    most = min(slices.shape)
    if not 1 <= rank <= most:
        raise ValueError(f"rank needs to be 1 to {most}, got {rank}")
    left, values, right = torch.linalg.svd(slices, full_matrices=False)
    fit = (left[:, :rank] * values[:rank]) @ right[:rank]
    energies = values.square()
    total = energies.sum()
    kept = 1.0 if total == 0 else (energies[:rank].sum() / total).item()
    return RankFit(fit.view_as(kernel), kept, rank * sum(slices.shape))


class _Ranks:
    title = "rank slider"

    def __init__(self, layers: Layers, rank: int) -> None:
        self.layers = layers
        self.rank = rank
        most = self._most({name: c.value for name, c in layers.controls({}).items()})
        if not isinstance(rank, int) or not 1 <= rank <= most:
            raise ValueError(f"rank needs to be 1 to {most}, got {rank!r}")

    def _most(self, values: Values) -> int:
        return min(self.layers.kernel(values).flatten(1).shape)

    def controls(self, values: Values) -> dict[str, Control]:
        controls = self.layers.controls(values)
        chosen = {name: c.fitted(values.get(name, c.value)) for name, c in controls.items()}
        most = self._most(chosen)
        return {**controls, "rank": Range(f"rank r (1 to {most})", 1, most, self.rank)}

    def view(self, values: Values) -> View:
        kernel, rank = self.layers.kernel(values), values["rank"]
        fit = rank_fit(kernel, rank)
        slices, height, width = kernel.shape
        form = "BSConv-U, one blueprint" if rank == 1 else f"the sum of {rank} BSConv-U"
        summary = (
            f"{values['layer'] or 'weight'}, filter {values['filter']}: rank {rank} ({form}) keeps "
            f"{fit.kept:.1%} of the energy."
        )
        error = torch.linalg.norm(kernel - fit.kernel) / (torch.linalg.norm(kernel) or 1)
        dense = kernel.numel()
        size = f"{height * width}" if height != width else f"{height}²"
        details = paragraph(
            f"Relative error {error:.3f}. Numbers in the filter: "
            f"r (M + K²) = {rank} · ({slices} + {size}) = {fit.numbers:,}, "
            f"{fit.numbers / dense:.0%} of the {dense:,} of the dense one."
        )

        def draw() -> plotting.Figure:
            panels = {"the kernel": kernel, f"rank {rank}: {fit.kept:.1%} kept": fit.kernel}
            if fit.kept < 1 - 1e-12:
                panels["what is lost (own scale)"] = kernel - fit.kernel
            return plotting.slice_grid(panels, title=f"The {slices} slices, of {rank} patterns")

        return View(summary, details, draw)


def rank_slider(source: Source, layer: str | None = None, filter: int = 0, rank: int = 1) -> Panel:
    """Controls "layer", "filter" and "rank": the kernel and the closest one of that rank.

    ``source`` is a model, a state dict or a weight (N, M, Kh, Kw). ValueError for a layer, filter
    or rank that is not there.
    """
    return Panel(_Ranks(Layers(source, layer, filter), rank))
