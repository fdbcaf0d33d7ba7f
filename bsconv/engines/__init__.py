"""What can run a network, behind one face: eager PyTorch, torch.compile, ONNX Runtime, OpenVINO."""

from ._engine import GRID, Engine, Runner, Setting, Tensors, difference, dtype_name, dtype_of
from ._fastest import Prepare, in_fastest
from ._onnx import OPSET, onnx_model
from ._onnx_engines import OnnxRuntime, OpenVINO
from ._pytorch import Compiled, CompiledRunner, Eager, Network

__all__ = [
    "ENGINES", "GRID", "OPSET", "CompiledRunner", "Engine", "Network", "Prepare", "Runner",
    "Setting", "Tensors", "difference", "dtype_name", "dtype_of", "in_fastest", "onnx_model",
]  # fmt: skip

_ALL = Eager(), Compiled(), OnnxRuntime(), OpenVINO()
ENGINES: dict[str, Engine] = {engine.name: engine for engine in _ALL}
