"""Figures with controls, for notebooks: a function for each, and another for what it computes.

Each function returns an ``ipywidgets`` container to be shown as the last line of a cell. Its
``controls`` by name, its ``text`` and its ``picture`` have a ``value`` each; setting that of a
control moves the others: ``explorer.controls["filter"].value = 7``. Without ipywidgets, importing
this package raises ImportError, which says how to install it.
"""

from ._cost import LayerCost, cost_calculator, layer_costs
from ._explorer import KernelFacts, kernel_explorer, kernel_facts
from ._order import Order, order_of, order_toggle
from ._panel import Panel
from ._rank import RankFit, rank_fit, rank_slider
from ._scrubber import Standing, comparisons, standing, training_scrubber
from ._surgeon import model_surgeon, stage_parameters, surgery_plan

__all__ = [
    "KernelFacts",
    "LayerCost",
    "Order",
    "Panel",
    "RankFit",
    "Standing",
    "comparisons",
    "cost_calculator",
    "kernel_explorer",
    "kernel_facts",
    "layer_costs",
    "model_surgeon",
    "order_of",
    "order_toggle",
    "rank_fit",
    "rank_slider",
    "stage_parameters",
    "standing",
    "surgery_plan",
    "training_scrubber",
]
