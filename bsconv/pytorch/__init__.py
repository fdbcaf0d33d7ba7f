"""Blueprint Separable Convolutions: layers, replacers, the penalty and the paper's models."""

from .models import MobileNetModifier, get_model, list_models, modify_mobilenet
from .modules import BSConvS, BSConvU
from .plan import LayerPlan, Plan
from .profiler import LayerProfile, ModelProfiler
from .regularization import BSConvS_ModelRegLossMixin, reg_loss
from .replacers import BSConvS_Replacer, BSConvU_Replacer

__all__ = [
    "BSConvS",
    "BSConvS_ModelRegLossMixin",
    "BSConvS_Replacer",
    "BSConvU",
    "BSConvU_Replacer",
    "LayerPlan",
    "LayerProfile",
    "MobileNetModifier",
    "ModelProfiler",
    "Plan",
    "get_model",
    "list_models",
    "modify_mobilenet",
    "reg_loss",
]
