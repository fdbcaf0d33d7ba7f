"""The kernels of a model, layer by layer, as the widgets that show one of them choose it."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from bsconv.pytorch.spectra._kernels import kernels_of

from ._controls import Choice, Control, Range
from ._panel import Values

Source = nn.Module | Mapping[str, Any] | Tensor


class Layers:
    """The two-dimensional kernels of ``source`` that have slices to compare, in float64.

    ``layer`` and ``filter`` are those to begin with, by default the first ones.
    """

    def __init__(self, source: Source, layer: str | None, filter: int) -> None:
        self._kernels = {
            kernels.name: kernels
            for kernels in kernels_of(source)
            if not kernels.skipped and len(kernels.shape) == 4
        }
        if not self._kernels:
            raise ValueError("source needs a convolution with slices to compare, got none")
        names = list(self._kernels)
        if layer is not None and layer not in names:
            near = get_close_matches(layer, names)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ValueError(f"layer needs to be one with slices to compare, got {layer!r}{hint}")
        self._first = names[0] if layer is None else layer
        filters = self._kernels[self._first].filters
        if not isinstance(filter, int) or not 0 <= filter < filters:
            raise ValueError(f"filter needs to be 0 to {filters - 1}, got {filter!r}")
        self._filter = filter

    def controls(self, values: Values) -> dict[str, Control]:
        layer = values.get("layer", self._first)
        highest = self._kernels[layer].filters - 1
        return {
            "layer": Choice("layer", {n or "(weight)": n for n in self._kernels}, self._first),
            "filter": Range(f"filter n (0 to {highest})", 0, highest, self._filter),
        }

    @torch.no_grad()
    def kernel(self, values: Values) -> Tensor:
        """The slices (M, Kh, Kw) of the filter chosen."""
        weight = self._kernels[values["layer"]].read()
        return weight[values["filter"]].detach().double().cpu()
