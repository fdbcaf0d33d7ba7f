"""The networks of the paper, by name, and the MobileNets of other libraries in BSConv form."""

from ._names import list_models
from ._registry import get_model
from .modification import MobileNetModifier, modify_mobilenet

__all__ = ["MobileNetModifier", "get_model", "list_models", "modify_mobilenet"]
