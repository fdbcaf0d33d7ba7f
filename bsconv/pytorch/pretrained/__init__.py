"""A trained dense network as a BSConv network."""

from ._project import project_pretrained, reestimate_batch_norm
from ._report import LayerProjection, ProjectionReport

__all__ = ["LayerProjection", "ProjectionReport", "project_pretrained", "reestimate_batch_norm"]
