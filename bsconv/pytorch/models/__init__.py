"""The networks of the paper, by name, and the MobileNets of other libraries in BSConv form."""

from ._names import ModelName, list_models, parse_name
from ._registry import get_model
from .modification import MobileNetModifier, modify_mobilenet

__all__ = [
    "MobileNetModifier", "ModelName", "get_model", "list_models", "modify_mobilenet", "parse_name",
]  # fmt: skip
