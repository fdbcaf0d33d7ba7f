"""OpenVINO."""

import importlib
import io
import os
from typing import Any

import torch
from torch import Tensor

from ._onnx import OnnxEngine, OnnxRunner

HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
_started_in: list[int] = []  # the process whose threads OpenVINO has


class OpenVinoRunner(OnnxRunner):
    """One compiled model for the example's size, and one for all other sizes, made when needed.

    Its threads do not live on in forked processes, which it leaves to PyTorch.
    """

    def serves(self, input: Tensor) -> bool:
        return super().serves(input) and _started_in in ([], [os.getpid()])

    def compute(self, images: Tensor) -> list[Tensor]:
        size = self.size if tuple(images.shape) == self.size else None
        model, requests = self._model(size)
        request = requests.pop() if requests else model.create_infer_request()
        request.infer([images.numpy()], share_inputs=True)
        # the results are the engine's own memory, which the next call writes over
        found = [torch.from_numpy(output.data).clone() for output in request.output_tensors]
        requests.append(request)  # a thread that calls meanwhile takes another
        return found

    def _model(self, size: tuple[int, ...] | None) -> Any:
        """A compiled model, and the requests to it that wait for their next call."""
        self._live = self._live or {}
        key = torch.get_num_threads(), size
        if key not in self._live:
            openvino: Any = importlib.import_module("openvino")
            _started_in[:] = _started_in or [os.getpid()]
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
