"""One kernel of a trained network: its slices, and the blueprint that comes closest to them."""

from bsconv.pytorch.decomposition import blueprint_factors
from bsconv.pytorch.spectra import kernel_spectra, random_first_share

from ...experiments import plotting
from ._layers import Layers, Source
from ._panel import Panel, View, paragraph


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
