"""Blueprint Separable Convolutions: layers, replacers, the penalty and the paper's models."""

from .models import get_model, list_models
from .modules import BSConvS, BSConvU
from .plan import LayerPlan, Plan
from .regularization import BSConvS_ModelRegLossMixin, reg_loss
from .replacers import BSConvS_Replacer, BSConvU_Replacer

__all__ = [
    "BSConvS",
    "BSConvS_ModelRegLossMixin",
    "BSConvS_Replacer",
    "BSConvU",
    "BSConvU_Replacer",
    "LayerPlan",
    "Plan",
    "get_model",
    "list_models",
    "reg_loss",
]
