"""Models as files that other programs run."""

from ._run import engine_of, is_installed, load_exported
from ._write import FORMATS, check_export, export_model

__all__ = [
    "FORMATS",
    "check_export",
    "engine_of",
    "export_model",
    "is_installed",
    "load_exported",
]
