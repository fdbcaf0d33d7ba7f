"""How similar the slices of a kernel are: principal components along the depth (section 3)."""

import functools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from ...basics.tables import CsvTable, Row, Table
from .._tools.convs import is_size
from ._kernels import Kernels, across, kernels_of
from ._variance_shares import shares_of

Source = nn.Module | Mapping[str, Any] | Tensor

TITLES = {  # of a table's columns, by the field of the layer
    "name": "layer", "filters": "N", "slices": "M", "kernel_size": "K",
    "lower_quartile": "quartile", "median": "median", "upper_quartile": "quartile",
    "random": "random", "excess": "excess", "cross_median": "across kernels",
    "cross_random": "random", "cross_excess": "excess", "skipped": "why left out",
}  # fmt: skip


@torch.no_grad()
def kernel_spectra(source: Source, center: bool = True) -> dict[str, Tensor]:
    """How the variance of a kernel's slices is distributed over their principal components.

    ``source`` is a model, a state dict or a weight (N, M, Kh, Kw), (N, M, K) or (N, M, Kd, Kh, Kw).
    For each layer, by its name (a bare weight is called ""), the result holds ratios of shape (N,
    min(M, Kh * Kw)): row n is the PCA of the M slices of filter n, each a sample of Kh * Kw
    numbers; the shares of the variance, largest first, add up to 1. Slices that are all multiples
    of one blueprint, or all zero, have 1, 0, 0, ... ``center=False`` leaves the mean slice in:
    shares of the energy, of which BSConv-U keeps the first.

    Layers with nothing to compare are left out: depthwise and 1x1 ones, so both parts of a BSConv
    layer; its dense kernel is that of ``to_conv()``. In models, transposed convolutions count too,
    and grouped ones have M = in_channels / groups slices per filter. In a state dict, tensors of
    three to five dimensions called "weight" or "*.weight" count as kernels of convolutions, unless
    the length of their bias shows that they are transposed. Without a bias, or with as many outputs
    as inputs, nothing shows it: what is within kernels is then across.

    Computed in float64 on the tensor's device (on the CPU for Apple's GPUs): nine digits hold. On
    the CPU, weights in float32 or less with 128 slices or more keep five digits.

    Raises TypeError for another kind of source, ValueError for one without convolution weights, for
    weights that are not finite or have no values yet (meta device, lazy layers), and for a bare
    weight with nothing to compare.

    >>> kernel_spectra(nn.Sequential(nn.Conv2d(16, 32, 3)))["0"].shape
    torch.Size([32, 9])
    """
    return _spectra(kernels_of(source), center)


@torch.no_grad()
def cross_kernel_spectra(source: Source, center: bool = True) -> dict[str, Tensor]:
    """The counterpart of :func:`kernel_spectra` across kernels, ratios (M, min(N, Kh * Kw)).

    Row m is the PCA of slice m of all N filters: of all slices that see input channel m.
    Depthwise-separable convolutions assume that these are multiples of one another; BSConv assumes
    it of the slices within a kernel (paper, section 4). With groups, a channel is seen by N /
    groups filters, and there are in_channels rows; a state dict does not tell groups, so all
    filters of a layer are compared. Omits the layers that :func:`kernel_spectra` leaves out, and
    those with one filter per group.

    >>> cross_kernel_spectra(nn.Sequential(nn.Conv2d(16, 32, 3)))["0"].shape
    torch.Size([16, 9])
    """
    return _spectra(map(across, kernels_of(source)), center)


@functools.lru_cache(maxsize=None, typed=True)
def random_first_share(slices: int, values: int, center: bool = True) -> float:
    """The median first share of kernels of independent Gaussian numbers: ``slices`` of ``values``.

    The fewer the slices, the larger it is, so a share means something by its excess over this one.
    Estimated from 64 to 1024 kernels, always the same. Raises ValueError unless both are 1 or more.
    """
    if not (is_size(slices) and is_size(values)):
        raise ValueError(f"a kernel needs slices >= 1 and values >= 1, got {slices=}, {values=}")
    count = max(64, min(1024, 2**20 // (slices * values)))
    generator = torch.Generator("cpu").manual_seed(0)
    size = (count, slices, values)
    kernels = torch.randn(size, generator=generator, dtype=torch.float64, device="cpu")
    (shares,) = shares_of([kernels], center)
    return shares[:, 0].median().item()


@dataclass(frozen=True)
class LayerSpectrum:
    """The first shares of one layer: what the first principal component of the slices explains.

    ``filters`` (N), ``slices`` of each (M) and ``kernel_size`` are the layer's. ``mean``, quartiles
    and ``median`` are taken over its filters; ``random`` is the median of random kernels of the
    same size (:func:`random_first_share`). ``cross_median`` and ``cross_random`` are those of the
    slices of one input channel, across kernels. All are NaN in a layer that was ``skipped``, for
    the reason given there; the last two also if only one filter sees each input channel.

    >>> spectra_table(nn.Conv2d(16, 32, 3)).rows[0].slices
    16
    """

    name: str
    filters: int
    slices: int
    kernel_size: tuple[int, ...]
    mean: float = math.nan
    lower_quartile: float = math.nan
    median: float = math.nan
    upper_quartile: float = math.nan
    random: float = math.nan
    cross_median: float = math.nan
    cross_random: float = math.nan
    skipped: str = ""

    @property
    def excess(self) -> float:
        """How far the median lies above that of random kernels."""
        return self.median - self.random

    @property
    def cross_excess(self) -> float:
        """The same across kernels."""
        return self.cross_median - self.cross_random


@dataclass(frozen=True)
class SpectraTable(Table, CsvTable):
    """The first shares of all layers, in the order of their names; prints as a table.

    >>> len(spectra_table(get_model("cifar_resnet20", num_classes=10)).compared)
    19
    """

    header = tuple(TITLES.values())

    rows: tuple[LayerSpectrum, ...]
    center: bool
    unsure: int = 0  # in a state dict, of how many it is not said whether they are transposed

    @property
    def compared(self) -> tuple[LayerSpectrum, ...]:
        """The rows that were not skipped."""
        return tuple(row for row in self.rows if not row.skipped)

    @property
    def mean(self) -> float:
        """The mean over layers of their mean first shares; NaN if none was compared."""
        means = [row.mean for row in self.compared]
        return sum(means) / (len(means) or math.nan)

    @property
    def summary(self) -> str:
        """One line: how many layers were compared, and how far they are from random kernels."""
        rows = self.compared
        line = f"{len(rows)} of {len(self.rows)} convolutions compared"
        if not rows:
            return line
        what = "variance" if self.center else "energy"
        excess = statistics.median(row.excess for row in rows)
        line += (
            f"; the first component of a kernel's slices explains {self.mean:.3f} of their {what} "
            f"in the mean of layers; the median layer exceeds random kernels by {excess:.2f}"
        )
        crossed = [row.cross_excess for row in rows if not math.isnan(row.cross_excess)]
        if crossed:
            line += f", across kernels by {statistics.median(crossed):.2f}"
        if self.unsure:
            line += (
                f"; a state dict does not say whether {self.unsure} of them are transposed, which "
                "would exchange within and across"
            )
        return line

    def _csv_rows(self) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
        header = [field.name for field in fields(LayerSpectrum)]
        header[-1:] = ["excess", "cross_excess", header[-1]]
        return header, self._cells(header)

    def _cells(self, names: Iterable[str]) -> list[list[Any]]:
        return [[_plain(getattr(row, name)) for name in names] for row in self.rows]

    def _table_rows(self) -> list[Row]:
        return [
            [name or "(root)", *(f"{v:.2f}" if isinstance(v, float) else v for v in rest)]
            for name, *rest in self._cells(TITLES)
        ]


@torch.no_grad()
def spectra_table(source: Source, center: bool = True) -> SpectraTable:
    """The first shares of each layer within and across kernels, compared with random kernels.

    Arguments and errors are those of :func:`kernel_spectra`.

    >>> spectra_table(nn.Sequential(nn.Conv2d(16, 32, 3))).rows[0].name
    '0'
    """
    layers = kernels_of(source)
    within, crossed = _spectra(layers, center), _spectra(map(across, layers), center)
    rows = (_row(one, within.get(one.name), crossed.get(one.name), center) for one in layers)
    unsure = sum(layer.unsure and not layer.skipped for layer in layers)
    return SpectraTable(tuple(rows), center, unsure)


def _row(
    layer: Kernels, within: Tensor | None, crossed: Tensor | None, center: bool
) -> LayerSpectrum:
    numbers: dict[str, float] = {}
    if within is not None:
        first = within[:, 0]
        quartiles = first.quantile(torch.arange(1, 4).to(first) / 4).tolist()
        names = ("lower_quartile", "median", "upper_quartile")
        numbers = dict(zip(names, quartiles, strict=True))
        numbers["mean"] = first.mean().item()
        numbers["random"] = random_first_share(layer.slices, layer.values, center)
    if crossed is not None:
        numbers["cross_median"] = crossed[:, 0].quantile(0.5).item()
        numbers["cross_random"] = random_first_share(across(layer).slices, layer.values, center)
    filters, slices, *size = layer.shape
    return LayerSpectrum(layer.name, filters, slices, tuple(size), **numbers, skipped=layer.skipped)


def _spectra(layers: Iterable[Kernels], center: bool) -> dict[str, Tensor]:
    """The shares of all layers that have slices to compare."""
    reads = {one.name: one.read for one in layers if not one.skipped and one.slices > 1}
    found = dict(zip(reads, shares_of((read() for read in reads.values()), center), strict=True))
    for name, shares in found.items():
        if shares.isnan().any():
            raise ValueError(f"the weight of {name!r} needs finite numbers, got NaN or infinity")
    return found


def _plain(value: Any) -> Any:
    """A size as text, and NaN as nothing."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return "" if value != value else value
