"""What can run a network, behind one face: eager PyTorch, torch.compile, ONNX Runtime, OpenVINO."""

from ._compiled import Compiled, CompiledRunner
from ._eager import Eager, Network
from ._engine import Engine, Runner, Setting, Tensors, dtype_name
from ._onnxruntime import OnnxRuntime
from ._openvino import OpenVINO

__all__ = [
    "ENGINES",
    "CompiledRunner",
    "Engine",
    "Network",
    "Runner",
    "Setting",
    "Tensors",
    "dtype_name",
]

ENGINES: dict[str, Engine] = {
    engine.name: engine for engine in (Eager(), Compiled(), OnnxRuntime(), OpenVINO())
}
