"""Kernels of a network and the blueprints closest to them; which slices of a kernel are alike."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bsconv.basics.errors import meant
from bsconv.pytorch.decomposition import blueprint_factors
from bsconv.pytorch.spectra import kernel_spectra, random_first_share

from ...experiments import plotting
from ._panel import Panel, View, buttons, choice, limit, paragraph, slider

Source = nn.Module | Mapping[str, Any] | Tensor
DEPTHWISE, POINTWISE = "depthwise first", "pointwise first"
_PATTERNS = torch.tensor(
    [
        [[1.0, 1, 1], [0, 0, 0], [-1, -1, -1]],
        [[1.0, 0, -1], [1, 0, -1], [1, 0, -1]],
        [[-0.5, 0, -0.5], [0, 1, 0], [-0.5, 0, -0.5]],
        [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.0, 1, 0], [1, 1, 1], [0, 1, 0]],
        [[1.0, 1, 0], [1, 0, 0], [0, 0, 0]],
    ]
)
_MOST = len(_PATTERNS)


def kernel_explorer(source: Source, layer: str | None = None, filter: int = 0) -> Panel:
    """Controls "layer" and "filter" for the kernels of ``source``: a model, state dict or weight.

    Shows the slices, the closest blueprint and its weights, and says what share of their variance
    the first principal component explains. ValueError for a layer or filter that is not there.
    """
    return _panel(source, layer, filter)


def rank_slider(source: Source, layer: str | None = None, filter: int = 0, rank: int = 1) -> Panel:
    """Controls "layer", "filter" and "rank": the kernel and the closest one of that rank.

    ValueError for a layer, filter or rank that is not there.
    """
    return _panel(source, layer, filter, rank)


def _panel(source: Source, layer: str | None, filter: int, rank: int | None = None) -> Panel:
    """Of the kernel chosen, in float64 on the CPU: its blueprint or the closest of ``rank``."""
    weights = _weights(source)
    if not weights:
        raise ValueError("source needs a convolution with slices to compare, got none")
    names = {name or "(weight)": name for name in weights}
    layer = next(iter(weights)) if layer is None else layer
    if layer not in weights:
        hint = meant(layer, weights)
        raise ValueError(f"layer needs to be one with slices to compare, got {layer!r}{hint}")
    layers = choice("layer", names, layer)
    filters = slider("filter n", 0, len(weights[layer]) - 1, filter)
    controls = {"layer": layers, "filter": filters}

    def kernel() -> Tensor:
        return weights[layers.value][filters.value].detach().double().cpu()

    def fit() -> None:
        limit(filters, len(weights[layers.value]) - 1)
        if rank is not None:
            limit(controls["rank"], min(kernel().flatten(1).shape))

    def view(layer: str, filter: int, rank: int | None = None) -> View:
        name = f"{layer or 'weight'}, filter {filter}"
        return _blueprint_of(name, kernel()) if rank is None else _of_rank(name, kernel(), rank)

    if rank is not None:
        controls["rank"] = slider("rank r", 1, min(kernel().flatten(1).shape), rank)
    return Panel("kernel explorer" if rank is None else "rank slider", controls, view, fit)


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


def _blueprint_of(name: str, kernel: Tensor) -> View:
    slices, height, width = kernel.shape
    both = (kernel_spectra(kernel[None], center)[""] for center in (True, False))
    variance, energy = (shares[0, 0].item() for shares in both)
    random = random_first_share(slices, height * width)
    (w,), (B,) = blueprint_factors(kernel[None])
    summary = (
        f"{name}: the first principal component explains {variance:.1%} of the variance of its "
        f"{slices} slices of {height} x {width}; random slices: {random:.1%}."
    )
    signs = f"{int((w > 0).sum())} positive, {int((w < 0).sum())} negative"
    details = paragraph(
        f"One blueprint (BSConv-U) keeps {energy:.1%} of the energy, with weights from "
        f"{w.min():.3f} to {w.max():.3f} ({signs})."
    )
    title = f"{name.rpartition(', ')[2]}: one blueprint keeps {{kept:.1%}} of its energy"
    return View(summary, details, lambda: plotting.blueprint_fit(kernel, B, w, title=title))


def closest_of_rank(kernel: Tensor, rank: int) -> tuple[Tensor, float]:
    """The closest kernel (M, Kh, Kw) of ``rank`` patterns, and what share of energy it keeps."""
    left, values, right = torch.linalg.svd(kernel.double().flatten(1), full_matrices=False)
    fit = (left[:, :rank] * values[:rank]) @ right[:rank]
    energies = values.square()
    kept = (energies[:rank].sum() / energies.sum()).nan_to_num(1).item()
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
    panels["what is lost (own scale)"] = (kernel - closest) * (kept < 1 - 1e-12)  # not rounding
    title = f"The {slices} slices, made of {rank} pattern{'s' if rank > 1 else ''}"
    return View(summary, details, lambda: plotting.slice_grid(panels, title=title))


def order_toggle(M: int = 5, N: int = 4) -> Panel:
    """Controls "order", "M" and "N": the dense kernel of either order, and which slices are alike.

    M input channels and N filters, both from 2 to 6; ValueError for others.
    """
    orders = {f"{DEPTHWISE} (separable)": DEPTHWISE, f"{POINTWISE} (BSConv-U)": POINTWISE}
    controls = {
        "order": buttons("order", orders, DEPTHWISE),
        "M": slider("M, input channels", 2, _MOST, M),
        "N": slider("N, filters", 2, _MOST, N),
    }
    return Panel("order toggle", controls, _of_order)


def kernel_of(order: str, M: int, N: int) -> Tensor:
    """The dense kernel (N, M, 3, 3) that equals the two convolutions, made of a few patterns."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randn(_MOST, _MOST, generator=generator).sign()
    w = (torch.empty(_MOST, _MOST).uniform_(0.3, 1, generator=generator) * signs)[:N, :M]
    if order == DEPTHWISE:
        return torch.einsum("nm,mhw->nmhw", w, _PATTERNS[:M])
    return torch.einsum("nm,nhw->nmhw", w, _PATTERNS[:N])


def _of_order(order: str, M: int, N: int) -> View:
    kernel = kernel_of(order, M, N)
    if order == DEPTHWISE:
        patterns, letter, slices, lines = M, "M", "w_nm D_m", "columns"
        alike = "in each column: all filters see input channel m through the same D_m"
    else:
        patterns, letter, slices, lines = N, "N", "w_nm B_n", "rows"
        alike = "in each row: filter n sees all its channels through its own blueprint B_n"
    both = kernel, kernel.transpose(0, 1)
    ranks = (torch.linalg.matrix_rank(matrices.flatten(2)).tolist() for matrices in both)
    by_filter, by_channel = (", ".join(map(str, each)) for each in ranks)
    details = paragraph(
        f"Rank of the slices of each filter n: {by_filter}; of those that see each channel m: "
        f"{by_channel}. Weights: M N + {letter} K² = {M}·{N} + {patterns}·3² = "
        f"{M * N + patterns * 9}."
    )
    heading = f"{order}: each frame holds one pattern"
    summary = f"{order}, slices {slices}: they are alike {alike}; {patterns} patterns."
    return View(
        summary, details, lambda: plotting.kernel_grids({heading: kernel}, {heading: lines})
    )
