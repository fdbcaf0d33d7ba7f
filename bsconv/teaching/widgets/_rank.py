"""A kernel from a few patterns: the closest one of rank r, which is BSConv-U for r = 1."""

import torch
from torch import Tensor

from ...experiments import plotting
from ._layers import Layers, Source
from ._panel import Panel, View, limit, paragraph, slider


def rank_slider(source: Source, layer: str | None = None, filter: int = 0, rank: int = 1) -> Panel:
    """Controls "layer", "filter" and "rank": the kernel and the closest one of that rank.

    ``source`` is a model, a state dict or a weight (N, M, Kh, Kw). ValueError for a layer, filter
    or rank that is not there.
    """
    layers = Layers(source, layer, filter)

    def most() -> int:
        return min(layers.kernel().flatten(1).shape)

    if not isinstance(rank, int) or not 1 <= rank <= most():
        raise ValueError(f"rank needs to be 1 to {most()}, got {rank!r}")
    ranks = slider("rank r", 1, most(), rank)

    def fit() -> None:
        layers.fit()
        limit(ranks, "rank r", most())

    def view(layer: str, filter: int, rank: int) -> View:
        return _view(f"{layer or 'weight'}, filter {filter}", layers.kernel(), rank)

    return Panel("rank slider", {**layers.controls, "rank": ranks}, view, fit)


def closest_of_rank(kernel: Tensor, rank: int) -> tuple[Tensor, float]:
    """The closest kernel whose slices are made of ``rank`` patterns (Eckart-Young).

    ``kernel`` has shape (M, Kh, Kw). The second value is the share of its energy that is kept.
    """
    left, values, right = torch.linalg.svd(kernel.double().flatten(1), full_matrices=False)
    fit = (left[:, :rank] * values[:rank]) @ right[:rank]
    energies = values.square()
    total = energies.sum()
    kept = 1.0 if total == 0 else (energies[:rank].sum() / total).item()
    return fit.view_as(kernel), kept


def _view(name: str, kernel: Tensor, rank: int) -> View:
    closest, kept = closest_of_rank(kernel, rank)
    slices, height, width = kernel.shape
    form = "BSConv-U, one blueprint" if rank == 1 else f"the sum of {rank} BSConv-U"
    summary = f"{name}: rank {rank} ({form}) keeps {kept:.1%} of the energy."
    error = torch.linalg.norm(kernel - closest) / (torch.linalg.norm(kernel) or 1)
    numbers, dense = rank * (slices + height * width), kernel.numel()
    size = f"{height * width}" if height != width else f"{height}²"
    details = paragraph(
        f"Relative error {error:.3f}. Numbers in the filter: "
        f"r (M + K²) = {rank} · ({slices} + {size}) = {numbers:,}, "
        f"{numbers / dense:.0%} of the {dense:,} of the dense one."
    )
    panels = {"the kernel": kernel, f"rank {rank}: {kept:.1%} kept": closest}
    if kept < 1 - 1e-12:
        panels["what is lost (own scale)"] = kernel - closest
    title = f"The {slices} slices, of {rank} patterns"
    return View(summary, details, lambda: plotting.slice_grid(panels, title=title))
