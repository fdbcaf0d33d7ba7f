"""What a projection did, layer by layer, as a table and as data."""

from dataclasses import dataclass
from typing import Literal

from .._tools.tables import Table

Method = Literal["weights", "batch_norm", "outputs"]


@dataclass(frozen=True)
class LayerProjection:
    """One replaced layer and what it kept of the dense one.

    ``weights_kept`` is the share of the sum of squares of the dense kernel that the closest
    blueprint kernel has, in [0, 1]. ``output_error``, where outputs were fitted, is the squared
    error of what the layer should have computed, relative to its variance.
    """

    name: str
    parameters_before: int
    parameters_after: int
    weights_kept: float
    output_error: float | None = None


@dataclass(frozen=True)
class ProjectionReport(Table):
    """What :func:`bsconv.pytorch.project_pretrained` did; prints as a table, in Jupyter too.

    ``agreement`` is the share of the images for which the new network's largest output is that of
    the dense network; None without images, and for models that don't return a matrix of logits.
    """

    header = ("layer", "parameters before", "after", "weights kept", "output error")

    layers: tuple[LayerProjection, ...]
    method: Method
    images: int
    agreement: float | None

    @property
    def summary(self) -> str:
        said = f"{len(self.layers)} layers projected by their {self.method.replace('_', ' ')}"
        if self.agreement is None:
            return said
        return (
            f"{said}; agrees with the dense network on {self.agreement:.1%} of {self.images} images"
        )

    def _table_rows(self) -> list[tuple[str | int, ...]]:
        return [
            (
                *(layer.name or "(root)", layer.parameters_before, layer.parameters_after),
                f"{layer.weights_kept:.1%}",
                "" if layer.output_error is None else f"{layer.output_error:.1%}",
            )
            for layer in self.layers
        ]
