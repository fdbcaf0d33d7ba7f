"""The fastest thing that computes the same on the machine at hand."""

from ._model import OptimizedModel
from ._optimize import collapse, optimize_for_inference
from ._report import InferenceReport, OptimizedLayer

__all__ = [
    "InferenceReport",
    "OptimizedLayer",
    "OptimizedModel",
    "collapse",
    "optimize_for_inference",
]
