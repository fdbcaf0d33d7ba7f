"""How similar the slices of a kernel are."""

from ._spectra import (
    LayerSpectrum,
    SpectraTable,
    cross_kernel_spectra,
    kernel_spectra,
    random_first_share,
    spectra_table,
)

__all__ = [
    "LayerSpectrum", "SpectraTable", "cross_kernel_spectra", "kernel_spectra", "random_first_share",
    "spectra_table",
]  # fmt: skip
