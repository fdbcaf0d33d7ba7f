"""The engines that run ONNX models: ONNX Runtime and OpenVINO."""

import importlib
import io
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..basics.timing import SETTLE, in_turns, medians
from ._engine import GRID, Engine, Runner, Setting, Tensors, difference, in_dtype
from ._onnx import INPUT, chain_to_onnx, network_to_onnx

PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}
SAME = 1e-4  # of the largest output: what pieces of a batch may change
DIVIDING = 0.5  # seconds of measuring whether threads should take pieces of a batch
HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
# by the process that has its threads; several would leave signals a stack that one has freed
_openvino_core: dict[int, Any] = {}

Size = tuple[int, ...]
Compute = Callable[[Tensor], list[Tensor]]


class OnnxRunner(Runner):
    """An ONNX model, and the structure of what it returns."""

    piece = 0  # images that one thread computes at a time; 0: all threads share the whole batch

    def __init__(self, content: bytes, outputs: Tensors, example: Tensor, setting: Setting) -> None:
        self.content = content
        self.device, self.size, self.dtype = example.device, tuple(example.shape), setting.dtype
        leaves, self.structure = pytree.tree_flatten(outputs)
        for leaf in leaves:
            if not isinstance(leaf, (Tensor, str, bool, type(None))):
                raise TypeError(f"the model returns a {type(leaf).__name__}, not tensors alone")
        self.leaves = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves]

    def serves(self, input: Tensor) -> bool:
        return input.device == self.device and input.dim() == len(self.size)

    def __call__(self, input: Tensor) -> Tensors:
        found = iter(self.compute(input.detach().to(torch.float32).contiguous(), self.piece))
        leaves = [next(found) if constant is None else constant[0] for constant in self.leaves]
        return in_dtype(pytree.tree_unflatten(leaves, self.structure), torch.float32, input.dtype)

    def compute(self, images: Tensor, piece: int = 0) -> list[Tensor]:
        """The tensors that the model returns, in memory that no later call writes to."""
        if not 0 < piece < len(images):
            return self.ready(images, self.size)(images)
        pieces = torch.split(images, piece)
        runs = [self.ready(each, (piece, *self.size[1:]), alone=True) for each in pieces]
        threads = _threads(os.getpid(), torch.get_num_threads())
        found = threads.map(lambda run, part: run(part), runs, pieces)
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    def ready(self, images: Tensor, size: Size, alone: bool = False) -> Compute:
        """What computes such images: by all threads, or by one of many alone.

        Made when first needed, for a process and its number of threads; what computes images of
        ``size``, as most are, does that alone, which is quicker.
        """
        fixed = size if tuple(images.shape) == size else None
        key = os.getpid(), torch.get_num_threads(), alone, fixed
        self._live = self._live or {}
        if key not in self._live:
            self._live[key] = self.start(torch.get_num_threads(), alone, fixed)
        found: Compute = self._live[key]
        return found

    def start(self, threads: int, alone: bool, fixed: Size | None) -> Compute:
        """What computes images of the size ``fixed``, or of any."""
        raise NotImplementedError

    def divide(self, example: Tensor) -> None:
        """Chooses ``piece``: what is the fastest of those that leave the outputs as they are."""
        noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
        images = example.float() + noise  # of which no two are alike
        expected, count = self.compute(images), len(images) / torch.get_num_threads()
        calls = {0: partial(self.compute, images)}
        for piece in {math.ceil(count), math.ceil(count / 4)} - {len(images)}:
            try:
                if difference(self.compute(images, piece), expected) <= SAME:
                    calls[piece] = partial(self.compute, images, piece)
            except Exception:  # of the many that engines raise where images are not independent
                continue
        if len(calls) > 1:
            seconds = medians(in_turns(calls, images.device, budget=DIVIDING, settle=SETTLE))
            self.piece = min(seconds, key=seconds.__getitem__)
        alone = self.piece > 0  # what is for other pieces goes out of memory
        sizes = None, (self.piece or self.size[0], *self.size[1:])
        self._live = {k: run for k, run in self._live.items() if k[2] == alone and k[3] in sizes}


@cache
def _threads(process: int, count: int) -> ThreadPoolExecutor:
    """The process is named because threads do not live on in its forks."""
    return ThreadPoolExecutor(count)


class OnnxEngine(Engine):
    grids = (GRID, 2 * GRID)
    runner: ClassVar[type[OnnxRunner]]

    def build(self, model: nn.Module, example: Tensor, setting: Setting) -> OnnxRunner:
        content, outputs, any_size = network_to_onnx(model, example)
        runner = self.runner(content, outputs, example, setting)
        runner.any_size = any_size
        runner(example)
        if example.device.type == "cpu":
            runner.divide(example)
        return runner

    def build_layer(self, layer: nn.Module, images: Tensor, setting: Setting) -> Any:
        content = chain_to_onnx(layer, images.shape)
        return content and partial(self.runner(content, images, images, setting).compute, images)


class OnnxRuntimeRunner(OnnxRunner):
    def start(self, threads: int, alone: bool, fixed: Size | None) -> Compute:
        runtime: Any = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1 if alone else threads
        options.log_severity_level = 3
        # between calls, its threads would take time from PyTorch's and from other sessions'
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if fixed:
            (images,) = importlib.import_module("onnx").load_from_string(self.content).graph.input
            for side, length in zip(images.type.tensor_type.shape.dim, fixed, strict=True):
                if side.dim_param:  # the name of a side that is free
                    options.add_free_dimension_override_by_name(side.dim_param, length)
        session = runtime.InferenceSession(self.content, options, providers=_providers(self.device))
        return partial(_in_session, session)


def _in_session(session: Any, images: Tensor) -> list[Tensor]:
    binding, place = session.io_binding(), (images.device.type, images.device.index or 0)
    float32 = importlib.import_module("numpy").float32
    binding.bind_input(INPUT, *place, float32, list(images.shape), images.data_ptr())
    for output in session.get_outputs():
        binding.bind_output(output.name, *place)
    if images.is_cuda:
        torch.cuda.current_stream(images.device).synchronize()
    session.run_with_iobinding(binding)
    # ONNX Runtime 1.23, the last one for Python 3.10, lets only what it wraps be shared
    values = [getattr(value, "_ortvalue", value) for value in binding.get_outputs()]
    return list(map(torch.utils.dlpack.from_dlpack, values))  # without a copy


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
    """Its threads do not live on in forked processes, which it leaves to PyTorch."""

    def serves(self, input: Tensor) -> bool:
        return super().serves(input) and set(_openvino_core) <= {os.getpid()}

    def start(self, threads: int, alone: bool, fixed: Size | None) -> Compute:
        openvino: Any = importlib.import_module("openvino")
        if os.getpid() not in _openvino_core:
            _openvino_core[os.getpid()] = openvino.Core()
        core = _openvino_core[os.getpid()]
        model = core.read_model(io.BytesIO(self.content))
        if fixed:
            model.reshape(fixed)
        hints: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": HINTS[self.dtype],
            "INFERENCE_NUM_THREADS": threads,
        }
        hints |= {"NUM_STREAMS": threads} if alone else {"PERFORMANCE_HINT": "LATENCY"}
        return partial(_in_request, core.compile_model(model, "CPU", hints), [])


def _in_request(model: Any, waiting: list[Any], images: Tensor) -> list[Tensor]:
    """Takes a request that waits for its next call; threads that call meanwhile take others."""
    try:
        request = waiting.pop()
    except IndexError:
        request = model.create_infer_request()
    # it copies its results itself: PyTorch's threads, had they done so, would go on spinning
    found = request.infer([images.numpy()], share_inputs=True, share_outputs=False).to_tuple()
    waiting.append(request)
    return list(map(torch.from_numpy, found))


class OpenVINO(OnnxEngine):
    name = "openvino"
    packages = ("openvino", "onnx", "onnxscript")
    extra = "openvino"
    dtypes = tuple(HINTS)
    runner = OpenVinoRunner

    def runs_on(self, device: torch.device) -> bool:
        return device.type == "cpu"
