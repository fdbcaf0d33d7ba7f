"""One kernel of a trained network: its slices, and the blueprint that comes closest to them."""

from typing import NamedTuple

from torch import Tensor

from bsconv.pytorch.decomposition import blueprint_factors
from bsconv.pytorch.spectra import kernel_spectra, random_first_share

from ...experiments import plotting
from ._controls import Control
from ._layers import Layers, Source
from ._panel import Panel, Values, View, paragraph


class KernelFacts(NamedTuple):
    """The first shares of a kernel (M, Kh, Kw), and the blueprint kernel closest to it.

    ``variance`` is the share of the first principal component (mean slice subtracted), ``random``
    its median over random kernels of that size, ``energy`` the share that the blueprint keeps.
    """

    variance: float
    random: float
    energy: float
    blueprint: Tensor  # (Kh, Kw)
    weights: Tensor  # (M,)


def kernel_facts(kernel: Tensor) -> KernelFacts:
    """Of the slices of one filter, shape (M, Kh, Kw); ValueError for another shape."""
    if kernel.dim() != 3:
        raise ValueError(f"kernel needs shape (M, Kh, Kw), got shape {tuple(kernel.shape)}")
    filters = kernel[None]
    variance, energy = (
        kernel_spectra(filters, center)[""][0, 0].item() for center in (True, False)
    )
    weights, blueprints = blueprint_factors(filters)
    random = random_first_share(len(kernel), kernel[0].numel())
    return KernelFacts(variance, random, energy, blueprints[0], weights[0])


class _Explorer:
    title = "kernel explorer"

    def __init__(self, layers: Layers) -> None:
        self.layers = layers

    def controls(self, values: Values) -> dict[str, Control]:
        return self.layers.controls(values)

    def view(self, values: Values) -> View:
        kernel = self.layers.kernel(values)
        facts = kernel_facts(kernel)
        slices, height, width = kernel.shape
        weights = facts.weights
        summary = (
            f"{values['layer'] or 'weight'}, filter {values['filter']}: the first principal "
            f"component explains {facts.variance:.1%} of the variance of its {slices} slices of "
            f"{height} x {width}; random slices: {facts.random:.1%}."
        )
        signs = f"{int((weights > 0).sum())} positive, {int((weights < 0).sum())} negative"
        details = paragraph(
            f"One blueprint (BSConv-U) keeps {facts.energy:.1%} of the energy, with weights from "
            f"{weights.min():.3f} to {weights.max():.3f} ({signs})."
        )

        def draw() -> plotting.Figure:
            title = f"filter {values['filter']}: one blueprint keeps {{kept:.1%}} of its energy"
            return plotting.blueprint_fit(kernel, facts.blueprint, weights, title=title)

        return View(summary, details, draw)


def kernel_explorer(source: Source, layer: str | None = None, filter: int = 0) -> Panel:
    """Controls "layer" and "filter" for the kernels of ``source``: a model, state dict or weight.

    Shows the slices, the closest blueprint and its weights, and says what share of their variance
    the first principal component explains. ValueError for a layer or filter that is not there.
    """
    return Panel(_Explorer(Layers(source, layer, filter)))
