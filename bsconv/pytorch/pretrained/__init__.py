"""A trained dense network as a BSConv network."""

from .._forms.plans import apply_plan, load_projected
from ._batch_norm import reestimate_batch_norm
from ._project import budget_curve, project_pretrained
from ._report import BudgetCurve, BudgetPoint, LayerProjection, ProjectionReport

__all__ = [
    "BudgetCurve", "BudgetPoint", "LayerProjection", "ProjectionReport", "apply_plan",
    "budget_curve", "load_projected", "project_pretrained", "reestimate_batch_norm",
]  # fmt: skip
