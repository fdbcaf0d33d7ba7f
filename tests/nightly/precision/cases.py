"""All cases, and which public names they cover; the others have no numbers to be wrong."""

from __future__ import annotations

from . import layers, measures, projection, transforms
from .comparison import CASES

__all__ = ["CASES", "WITHOUT_NUMBERS", "layers", "measures", "projection", "transforms"]

# public names that no case covers, with the reason
WITHOUT_NUMBERS = {
    "BlueprintLayer": "what the layers share",
    "BudgetCurve": "predictions, which are computed in float64 alone",
    "BudgetPoint": "predictions, which are computed in float64 alone",
    "BudgetReport": "predictions, which are computed in float64 alone",
    "Engine": "what the engines share",
    "EngineResult": "durations",
    "LayerChoice": "names and counts of parameters",
    "Runner": "what the engines share",
    "Setting": "how an engine is asked to compute",
    "apply_plan": "makes layers, whose numbers come with the weights",
    "budget_curve": "predictions of project_pretrained, in float64 alone",
    "load_projected": "copies weights",
    "ModelName": "the parts of a name",
    "Replacer": "what both replacers share",
    "parse_name": "reads names",
    "InferenceReport": "durations, and the difference that optimize_for_inference checks itself",
    "LayerPlan": "names and counts of parameters",
    "OptimizedLayer": "names and durations",
    "Plan": "names and counts of parameters",
    "list_models": "names",
    "BlockPlan": "names, counts of parameters, and a share that is computed in float64 alone",
    "ModificationPlan": "names and counts of parameters",
    "attach_reg_loss": "gives a model the method that reg_loss covers",
    "check_reg_loss": "looks at names",
    "bsconv_s": "makes a BSConvS",
    "bsconv_u": "makes a BSConvU",
    "random_first_share": "draws numbers of its own, in float64 alone",
    "uninitialized": "leaves numbers as they are in memory",
}
