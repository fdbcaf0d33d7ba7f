"""Blueprint Separable Convolutions (BSConv) for PyTorch; the library is ``bsconv.pytorch``.

``bsconv.load_run(folder)`` is a trained network of ``bsconv train``, ready for use.
"""

from importlib import import_module
from typing import Any

from .basics.errors import needs

__version__ = "1.0.0"
__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    if name != "load_run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return import_module(".experiments.classifier", __name__).load_run
    except ModuleNotFoundError as error:
        raise ImportError(needs("load_run", error)) from error
