"""One kernel of a network: the blueprint closest to it, or as many patterns as wanted."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from bsconv.pytorch.decomposition import blueprint_factors
from bsconv.pytorch.spectra import kernel_spectra, random_first_share

from ...experiments import plotting
from ._panel import Panel, View, choice, limit, paragraph, slider

Source = nn.Module | Mapping[str, Any] | Tensor


class Layers:
    """The two-dimensional kernels of ``source`` that have slices to compare, and their controls.

    ``layer`` and ``filter`` are those to begin with, by default the first ones.
    """

    def __init__(self, source: Source, layer: str | None, filter: int) -> None:
        self._weights = _weights(source)
        if not self._weights:
            raise ValueError("source needs a convolution with slices to compare, got none")
        names = list(self._weights)
        if layer is None:
            layer = names[0]
        if layer not in names:
            near = get_close_matches(layer, names)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ValueError(f"layer needs to be one with slices to compare, got {layer!r}{hint}")
        last = len(self._weights[layer]) - 1
        if not isinstance(filter, int) or not 0 <= filter <= last:
            raise ValueError(f"filter needs to be 0 to {last}, got {filter!r}")
        self._layer = choice("layer", {name or "(weight)": name for name in names}, layer)
        self._filter = slider("filter n", 0, last, filter)
        self.controls = {"layer": self._layer, "filter": self._filter}

    def fit(self) -> None:
        """End the slider of filters where the layer ends."""
        limit(self._filter, "filter n", len(self._weights[self._layer.value]) - 1)

    def kernel(self) -> Tensor:
        """The slices (M, Kh, Kw) of the filter chosen, in float64 on the CPU."""
        return self._weights[self._layer.value][self._filter.value].detach().double().cpu()


def _weights(source: Source) -> dict[str, Tensor]:
    """By the name of the layer, weights (N, M, Kh, Kw) of several slices larger than 1 x 1."""
    if isinstance(source, Tensor):
        source = {"weight": source}
    state = source.state_dict() if isinstance(source, nn.Module) else source
    return {
        name.removesuffix("weight").removesuffix("."): value
        for name, value in state.items()
        if name.rpartition(".")[2] == "weight" and isinstance(value, Tensor) and value.dim() == 4
        if value.shape[1] > 1 and value.shape[2:].numel() > 1
    }


def kernel_explorer(source: Source, layer: str | None = None, filter: int = 0) -> Panel:
    """Controls "layer" and "filter" for the kernels of ``source``: a model, state dict or weight.

    Shows the slices, the closest blueprint and its weights, and says what share of their variance
    the first principal component explains. ValueError for a layer or filter that is not there.
    """
    layers = Layers(source, layer, filter)

    def view(layer: str, filter: int) -> View:
        kernel = layers.kernel()
        slices, height, width = kernel.shape
        variance, energy = (
            kernel_spectra(kernel[None], center)[""][0, 0].item() for center in (True, False)
        )
        random = random_first_share(slices, height * width)
        (weights,), (blueprint,) = blueprint_factors(kernel[None])
        summary = (
            f"{layer or 'weight'}, filter {filter}: the first principal component explains "
            f"{variance:.1%} of the variance of its {slices} slices of {height} x {width}; "
            f"random slices: {random:.1%}."
        )
        signs = f"{int((weights > 0).sum())} positive, {int((weights < 0).sum())} negative"
        details = paragraph(
            f"One blueprint (BSConv-U) keeps {energy:.1%} of the energy, with weights from "
            f"{weights.min():.3f} to {weights.max():.3f} ({signs})."
        )
        title = f"filter {filter}: one blueprint keeps {{kept:.1%}} of its energy"
        return View(
            summary,
            details,
            lambda: plotting.blueprint_fit(kernel, blueprint, weights, title=title),
        )

    return Panel("kernel explorer", layers.controls, view, layers.fit)


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
        return _of_rank(f"{layer or 'weight'}, filter {filter}", layers.kernel(), rank)

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


def _of_rank(name: str, kernel: Tensor, rank: int) -> View:
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
