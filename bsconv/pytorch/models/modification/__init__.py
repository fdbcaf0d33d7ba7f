"""MobileNets and EfficientNets in their BSConv form."""

from ._modifier import MobileNetModifier, modify_mobilenet
from ._plan import BlockPlan, ModificationPlan

__all__ = ["BlockPlan", "MobileNetModifier", "ModificationPlan", "modify_mobilenet"]
