"""What a projection did, layer by layer, as a table and as data."""

from dataclasses import dataclass, field
from typing import Literal

from ...basics.tables import Table

Cost = Literal["macs", "parameters", "time"]
Kind = Literal["u", "s", "cp"]
Method = Literal["weights", "batch_norm", "outputs"]


@dataclass(frozen=True)
class LayerProjection:
    """One convolution, the form that it got, what that costs and what it kept of the dense one.

    ``form`` is "dense", "u", "s" or "cp"; ``rank`` the channels in the middle of the latter two.
    MACs are those of one image. ``weights_kept`` is the share of the sum of squares of the dense
    kernel that the closest kernel of that form has. ``damage``, with a budget, is what the answer
    was predicted to lose by this layer alone: nats of the divergence from the dense network's
    probabilities, or half of the relative squared error of other answers. ``output_error``, where
    outputs were fitted, is the squared error relative to the variance of what was wanted.

    >>> project_pretrained(nn.Conv2d(16, 32, 3))[1].layers[0].form
    'u'
    """

    name: str
    form: str
    rank: int | None
    parameters_before: int
    parameters_after: int
    macs_before: int | None = None
    macs_after: int | None = None
    weights_kept: float | None = None
    damage: float | None = None
    output_error: float | None = None


@dataclass(frozen=True)
class BudgetPoint:
    """What a budget buys; ``forms`` names the form of each convolution.

    >>> budget_curve(nn.Conv2d(16, 32, 3), torch.rand(9, 16, 8, 8), [0.5]).points[0].share <= 0.5
    True
    """

    budget: float
    share: float
    damage: float
    forms: dict[str, str]


@dataclass(frozen=True)
class BudgetCurve(Table):
    """Predicted damage for many budgets, see :func:`bsconv.pytorch.budget_curve`.

    >>> budget_curve(nn.Conv2d(16, 32, 3), torch.rand(9, 16, 8, 8), [0.5, 1]).summary
    '2 budgets of MACs'
    """

    header = ("budget", "cost", "predicted damage", "layers left dense")

    points: tuple[BudgetPoint, ...]
    of: Cost
    _seen: object = field(default=None, repr=False, compare=False)

    @property
    def summary(self) -> str:
        return f"{len(self.points)} budgets of {_title(self.of)}"

    def _table_rows(self) -> list[tuple[str | int, ...]]:
        dense = [list(point.forms.values()).count("dense") for point in self.points]
        return [
            (f"{point.budget:.1%}", f"{point.share:.1%}", f"{point.damage:.3g}", count)
            for point, count in zip(self.points, dense, strict=True)
        ]


@dataclass(frozen=True)
class ProjectionReport(Table):
    """What :func:`bsconv.pytorch.project_pretrained` did; prints as a table, in Jupyter too.

    ``agreement`` is the share of the images for which the new network's largest output is that of
    the dense network; None where there are no images or logits. ``plan`` has the form of each
    replaced layer, as :func:`apply_plan` takes it. For a ``budget``, ``share`` is what the new
    network costs, relative to the dense one; ``kept`` names convolutions that stay dense because
    the model calls them twice or never, or ties their weights; ``curve`` has what other budgets
    lose, for `bsconv.experiments.plotting.damage_curve`, which draws a report.

    >>> project_pretrained(nn.Sequential(nn.Conv2d(16, 32, 3)))[1].plan
    {'0': 'u'}
    """

    header = (
        "layer", "form", "rank", "MACs before", "after", "parameters before", "after",
        "weights kept", "damage", "output error",
    )  # fmt: skip

    layers: tuple[LayerProjection, ...]
    method: Method
    images: int
    agreement: float | None
    plan: dict[str, str] = field(default_factory=dict)
    of: Cost | None = None
    budget: float | None = None
    share: float | None = None
    kept: tuple[str, ...] = ()
    curve: BudgetCurve | None = field(default=None, repr=False, compare=False)

    @property
    def damage(self) -> float | None:
        """Predicted for the whole network: the sum over its layers; None without a budget."""
        return None if self.budget is None else sum(layer.damage or 0.0 for layer in self.layers)

    @property
    def summary(self) -> str:
        said = f"{len(self.layers)} layers projected by their {self.method.replace('_', ' ')}"
        if self.damage is not None and self.share is not None:
            changed = sum(layer.form != "dense" for layer in self.layers)
            said = f"{changed} of {len(self.layers)} convolutions changed; {self.share:.1%} of the "
            said += f"{_title(self.of)}, predicted damage {self.damage:.3g}"
        if self.kept:
            said += f"; {', '.join(map(repr, self.kept))} not called once or tied, so left dense"
        if self.agreement is not None:
            share = f"{self.agreement:.1%} of {self.images} images"
            said += f"; agrees with the dense network on {share}"
        return said

    def _table_rows(self) -> list[tuple[str | int, ...]]:
        rows = []
        for layer in self.layers:
            macs, parameters = layer.macs_before, layer.parameters_before
            counts = layer.rank, macs, layer.macs_after, parameters, layer.parameters_after
            shares = (layer.weights_kept, ".1%"), (layer.damage, ".2g"), (layer.output_error, ".1%")
            numbers = ["" if count is None else count for count in counts]
            numbers += ["" if share is None else format(share, form) for share, form in shares]
            rows.append((layer.name or "(root)", layer.form, *numbers))
        return rows


def _title(of: Cost | None) -> str:
    return "MACs" if of == "macs" else str(of)
