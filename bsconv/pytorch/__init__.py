"""Blueprint Separable Convolutions: layers, replacers, the penalty and the paper's models."""

from .inference import (
    InferenceReport,
    OptimizedLayer,
    OptimizedModel,
    collapse,
    optimize_for_inference,
)
from .models import MobileNetModifier, get_model, list_models, modify_mobilenet
from .modules import BSConvCP, BSConvS, BSConvS1d, BSConvS3d, BSConvU, BSConvU1d, BSConvU3d
from .plan import LayerPlan, Plan
from .pretrained import (
    BudgetCurve,
    BudgetPoint,
    LayerProjection,
    ProjectionReport,
    apply_plan,
    budget_curve,
    load_projected,
    project_pretrained,
    reestimate_batch_norm,
)
from .profiler import LayerProfile, ModelProfiler
from .regularization import BSConvS_ModelRegLossMixin, reg_loss
from .replacers import BSConvS_Replacer, BSConvU_Replacer
from .spectra import (
    LayerSpectrum,
    SpectraTable,
    cross_kernel_spectra,
    kernel_spectra,
    spectra_table,
)

__all__ = [
    "BSConvCP", "BSConvS", "BSConvS1d", "BSConvS3d", "BSConvS_ModelRegLossMixin",
    "BSConvS_Replacer", "BSConvU", "BSConvU1d", "BSConvU3d", "BSConvU_Replacer", "BudgetCurve",
    "BudgetPoint", "InferenceReport", "LayerPlan", "LayerProfile", "LayerProjection",
    "LayerSpectrum", "MobileNetModifier", "ModelProfiler", "OptimizedLayer", "OptimizedModel",
    "Plan", "ProjectionReport", "SpectraTable", "apply_plan", "budget_curve", "collapse",
    "cross_kernel_spectra", "get_model", "kernel_spectra", "list_models", "load_projected",
    "modify_mobilenet", "optimize_for_inference", "project_pretrained", "reestimate_batch_norm",
    "reg_loss", "spectra_table",
]  # fmt: skip
