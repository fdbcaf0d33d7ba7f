"""ONNX Runtime."""

import importlib
import os
from typing import Any

import torch
from torch import Tensor

from ._onnx import INPUT, OnnxEngine, OnnxRunner

PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}


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


class OnnxRuntime(OnnxEngine):
    name = "onnxruntime"
    packages = ("onnxruntime", "onnx", "onnxscript")
    extra = "onnx"
    dtypes = (torch.float32,)
    runner = OnnxRuntimeRunner

    def runs_on(self, device: torch.device) -> bool:
        return bool(_providers(device))


def _providers(device: torch.device) -> list[str]:
    known = importlib.import_module("onnxruntime").get_available_providers()
    return [name for name in PROVIDERS.get(device.type, ()) if name in known]
