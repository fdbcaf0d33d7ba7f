"""What can run a network, behind one face: eager PyTorch, torch.compile, ONNX Runtime, OpenVINO."""

from ._engine import Engine, Runner, Setting, Tensors, dtype_name, dtype_of
from ._onnx import OPSET, onnx_model
from ._onnx_engines import OnnxRuntime, OpenVINO
from ._pytorch import Compiled, CompiledRunner, Eager, Network

__all__ = [
    "ENGINES",
    "OPSET",
    "CompiledRunner",
    "Engine",
    "Network",
    "Runner",
    "Setting",
    "Tensors",
    "dtype_name",
    "dtype_of",
    "onnx_model",
]

ENGINES: dict[str, Engine] = {
    engine.name: engine for engine in (Eager(), Compiled(), OnnxRuntime(), OpenVINO())
}
