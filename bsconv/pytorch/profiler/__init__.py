"""What a model costs, layer by layer."""

from ._costs import LayerProfile
from ._profiler import ModelProfiler

__all__ = ["LayerProfile", "ModelProfiler"]
