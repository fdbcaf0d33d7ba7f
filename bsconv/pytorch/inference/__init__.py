"""The fastest thing that computes the same on the machine at hand."""

from ...engines import ENGINES, Engine, Runner, Setting
from ._model import OptimizedModel
from ._optimize import optimize_for_inference
from ._plans import collapse
from ._report import EngineResult, InferenceReport, OptimizedLayer

__all__ = [
    "ENGINES", "Engine", "EngineResult", "InferenceReport", "OptimizedLayer", "OptimizedModel",
    "Runner", "Setting", "collapse", "optimize_for_inference",
]  # fmt: skip
