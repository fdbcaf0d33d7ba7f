"""Models as files that other programs run."""

from ._run import ENGINES, load_exported
from ._write import FORMATS, ONNX_OPSET, check_export, export_model

__all__ = ["ENGINES", "FORMATS", "ONNX_OPSET", "check_export", "export_model", "load_exported"]
