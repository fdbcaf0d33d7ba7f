"""What a projection did, layer by layer, as a table and as data."""

import dataclasses
from dataclasses import dataclass, field

from .._tools.tables import Table
from ._options import Cost, Method


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
    ``plan`` has the form of each replaced layer, as :func:`apply_plan` takes it.
    """

    header = ("layer", "parameters before", "after", "weights kept", "output error")

    layers: tuple[LayerProjection, ...]
    method: Method
    images: int
    agreement: float | None
    plan: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        said = f"{len(self.layers)} layers projected by their {self.method.replace('_', ' ')}"
        return said + _agrees(self.agreement, self.images)

    def _table_rows(self) -> list[tuple[str | int, ...]]:
        rows = []
        for layer in self.layers:
            name, *counts, kept, error = dataclasses.astuple(layer)
            missing = "" if error is None else f"{error:.1%}"
            rows.append((name or "(root)", *counts, f"{kept:.1%}", missing))
        return rows


@dataclass(frozen=True)
class LayerChoice:
    """One convolution, the form that it got, and what that costs; MACs are those of one image.

    ``form`` is "dense", "u", "s" or "cp"; ``rank`` the channels in the middle of the latter two.
    ``damage`` is what the answer was predicted to lose by this layer alone: nats of the divergence
    from the dense network's probabilities, or half of the relative squared error of other answers.
    ``output_error`` is as in :class:`LayerProjection`.
    """

    name: str
    form: str
    rank: int | None
    macs_before: int
    macs_after: int
    parameters_before: int
    parameters_after: int
    damage: float
    output_error: float


@dataclass(frozen=True)
class BudgetReport(Table):
    """What :func:`bsconv.pytorch.project_pretrained` did for a budget; prints as a table.

    ``share`` is what the new network costs, relative to the dense one: multiply-accumulates of its
    convolutions and matrix products, parameters, or predicted time, as ``of`` says. ``agreement``
    and ``plan`` are as in :class:`ProjectionReport`. ``kept`` names convolutions that stay dense
    because the model calls them twice, or never.
    """

    header = (
        "layer", "form", "rank", "MACs before", "after", "parameters before", "after", "damage",
        "output error",
    )  # fmt: skip

    layers: tuple[LayerChoice, ...]
    of: Cost
    budget: float
    share: float
    images: int
    agreement: float | None
    plan: dict[str, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()

    @property
    def damage(self) -> float:
        """Predicted for the whole network: the sum over its layers."""
        return sum(layer.damage for layer in self.layers)

    @property
    def summary(self) -> str:
        changed = sum(layer.form != "dense" for layer in self.layers)
        said = (
            f"{changed} of {len(self.layers)} convolutions changed; {self.share:.1%} of the "
            f"{'MACs' if self.of == 'macs' else self.of}, predicted damage {self.damage:.3g}"
        )
        if self.kept:
            said += f"; {', '.join(map(repr, self.kept))} not called once, so left dense"
        return said + _agrees(self.agreement, self.images)

    def _table_rows(self) -> list[tuple[str | int, ...]]:
        rows = []
        for layer in self.layers:
            name, form, rank, *counts, damage, error = dataclasses.astuple(layer)
            about = name or "(root)", form, "" if rank is None else rank
            rows.append((*about, *counts, f"{damage:.2g}", f"{error:.1%}"))
        return rows


@dataclass(frozen=True)
class BudgetPoint:
    """What a budget buys; ``forms`` names the form of each convolution."""

    budget: float
    share: float
    damage: float
    forms: dict[str, str]


@dataclass(frozen=True)
class BudgetCurve(Table):
    """Predicted damage for many budgets, see :func:`bsconv.pytorch.budget_curve`."""

    header = ("budget", "cost", "predicted damage", "layers left dense")

    points: tuple[BudgetPoint, ...]
    of: Cost
    _seen: object = field(default=None, repr=False, compare=False)

    @property
    def summary(self) -> str:
        return f"{len(self.points)} budgets of {'MACs' if self.of == 'macs' else self.of}"

    def _table_rows(self) -> list[tuple[str | int, ...]]:
        return [
            (
                f"{point.budget:.1%}",
                f"{point.share:.1%}",
                f"{point.damage:.3g}",
                sum(form == "dense" for form in point.forms.values()),
            )
            for point in self.points
        ]


def _agrees(agreement: float | None, images: int) -> str:
    if agreement is None:
        return ""
    return f"; agrees with the dense network on {agreement:.1%} of {images} images"
