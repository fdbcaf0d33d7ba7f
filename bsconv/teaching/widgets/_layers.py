"""The kernels of a model, layer by layer, as the widgets that show one of them choose it."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from ._panel import choice, limit, slider

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
