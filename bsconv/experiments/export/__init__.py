"""Models as files that other programs run."""

from ._run import ENGINES, default_engine, is_installed, load_exported
from ._write import FORMATS, check_export, export_model

__all__ = [
    "ENGINES",
    "FORMATS",
    "check_export",
    "default_engine",
    "export_model",
    "is_installed",
    "load_exported",
]
