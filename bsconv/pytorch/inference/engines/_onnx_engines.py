"""The engines that run ONNX models: ONNX Runtime and OpenVINO."""

import importlib
import io
import os
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ._engine import Engine, Runner, Setting, Tensors, in_dtype
from ._onnx import INPUT, chain_to_onnx, network_to_onnx

PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}
HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
_openvino_started_in: list[int] = []  # the process whose threads OpenVINO has


class OnnxRunner(Runner):
    """An ONNX model, and the structure of what it returns."""

    def __init__(self, content: bytes, outputs: Tensors, example: Tensor, setting: Setting) -> None:
        self.content = content
        self.device, self.size, self.dtype = example.device, tuple(example.shape), setting.dtype
        leaves, self.structure = pytree.tree_flatten(outputs)
        for leaf in leaves:
            if not isinstance(leaf, (Tensor, str, bool, type(None))):
                raise TypeError(f"the model returns a {type(leaf).__name__}, not tensors alone")
        self.leaves = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves]

    def serves(self, input: Tensor) -> bool:
        return input.device == self.device and input.is_floating_point()

    def __call__(self, input: Tensor) -> Tensors:
        found = iter(self.compute(input.detach().to(torch.float32).contiguous()))
        leaves = [next(found) if constant is None else constant[0] for constant in self.leaves]
        return in_dtype(pytree.tree_unflatten(leaves, self.structure), input.dtype)

    def compute(self, images: Tensor) -> list[Tensor]:
        """The tensors that the model returns, in memory that no later call writes to."""
        raise NotImplementedError


class OnnxEngine(Engine):
    grid = 16
    runner: ClassVar[type[OnnxRunner]]

    def build(self, model: nn.Module, example: Tensor, setting: Setting) -> OnnxRunner:
        runner = self.runner(*network_to_onnx(model, example), example, setting)
        runner(example)
        return runner

    def build_layer(self, layer: nn.Module, images: Tensor, setting: Setting) -> Any:
        content = chain_to_onnx(layer, images.shape)
        return content and partial(self.runner(content, images, images, setting).compute, images)


class OnnxRuntimeRunner(OnnxRunner):
    """Sessions have threads of their own: another process or number of threads, another session."""

    def compute(self, images: Tensor) -> list[Tensor]:
        session = self._session()
        binding, place = session.io_binding(), (images.device.type, images.device.index or 0)
        float32 = importlib.import_module("numpy").float32
        binding.bind_input(INPUT, *place, float32, list(images.shape), images.data_ptr())
        for output in session.get_outputs():
            binding.bind_output(output.name, *place)
        if images.is_cuda:
            torch.cuda.current_stream(images.device).synchronize()
        session.run_with_iobinding(binding)
        return list(map(torch.utils.dlpack.from_dlpack, binding.get_outputs()))  # without a copy

    def _session(self) -> Any:
        here = os.getpid(), torch.get_num_threads()
        if self._live is None or self._live[0] != here:
            runtime: Any = importlib.import_module("onnxruntime")
            options = runtime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 3
            # between calls, its threads would take time from PyTorch's
            options.add_session_config_entry("session.force_spinning_stop", "1")
            known = _providers(self.device)
            self._live = here, runtime.InferenceSession(self.content, options, providers=known)
        return self._live[1]


def _providers(device: torch.device) -> list[str]:
    known = importlib.import_module("onnxruntime").get_available_providers()
    return [name for name in PROVIDERS.get(device.type, ()) if name in known]


class OnnxRuntime(OnnxEngine):
    name = "onnxruntime"
    packages = ("onnxruntime", "onnx", "onnxscript")
    extra = "onnx"
    dtypes = (torch.float32,)
    runner = OnnxRuntimeRunner

    def runs_on(self, device: torch.device) -> bool:
        return bool(_providers(device))


class OpenVinoRunner(OnnxRunner):
    """One compiled model for the example's size, and one for all other sizes, made when needed.

    Its threads do not live on in forked processes, which it leaves to PyTorch.
    """

    def serves(self, input: Tensor) -> bool:
        return super().serves(input) and _openvino_started_in in ([], [os.getpid()])

    def compute(self, images: Tensor) -> list[Tensor]:
        size = self.size if tuple(images.shape) == self.size else None
        model, requests = self._model(size)
        request = requests.pop() if requests else model.create_infer_request()
        # it copies its results itself: PyTorch's threads, had they done so, would go on spinning
        found = request.infer([images.numpy()], share_inputs=True, share_outputs=False).to_tuple()
        requests.append(request)  # a thread that calls meanwhile takes another
        return list(map(torch.from_numpy, found))

    def _model(self, size: tuple[int, ...] | None) -> Any:
        """A compiled model, and the requests to it that wait for their next call."""
        self._live = self._live or {}
        key = torch.get_num_threads(), size
        if key not in self._live:
            openvino: Any = importlib.import_module("openvino")
            _openvino_started_in[:] = _openvino_started_in or [os.getpid()]
            core = openvino.Core()
            model = core.read_model(io.BytesIO(self.content))
            if size is not None:
                model.reshape(size)
            hints = {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": HINTS[self.dtype],
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            }
            self._live[key] = core.compile_model(model, "CPU", hints), []
        return self._live[key]


class OpenVINO(OnnxEngine):
    name = "openvino"
    packages = ("openvino", "onnx", "onnxscript")
    extra = "openvino"
    dtypes = tuple(HINTS)
    runner = OpenVinoRunner

    def runs_on(self, device: torch.device) -> bool:
        return device.type == "cpu"
