"""The networks of the paper, by name."""

from ._names import list_models
from ._registry import get_model

__all__ = ["get_model", "list_models"]
