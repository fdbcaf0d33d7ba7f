"""Figures with controls, for notebooks.

Each function returns an ``ipywidgets`` container to be shown as the last line of a cell. Its
``controls`` by name, its ``text`` and its ``picture`` have a ``value`` each; setting that of a
control moves the others: ``explorer.controls["filter"].value = 7``. Without ipywidgets, importing
this package raises ImportError, which says how to install it.
"""

from ._cost import cost_calculator
from ._kernels import kernel_explorer, order_toggle, rank_slider
from ._panel import Panel
from ._scrubber import training_scrubber
from ._surgeon import model_surgeon

__all__ = [
    "Panel", "cost_calculator", "kernel_explorer", "model_surgeon", "order_toggle", "rank_slider",
    "training_scrubber",
]  # fmt: skip
