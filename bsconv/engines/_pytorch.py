"""PyTorch: eager, and through torch.compile."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ._engine import Engine, Runner, Setting, Tensors, dtype_of, in_dtype

FORMATS = {False: torch.contiguous_format, True: torch.channels_last}


class Network(nn.Module, Runner):
    """A model between the conversion of its input to ``dtype`` and memory format, and back."""

    def __init__(self, model: nn.Module, setting: Setting) -> None:
        super().__init__()
        self.model = model
        self.dtype, self.channels_last = setting

    def forward(self, input: Tensor) -> Tensors:
        converted = input if input.dtype == self.dtype else input.to(self.dtype)
        if self.channels_last and input.dim() == 4:
            converted = converted.contiguous(memory_format=torch.channels_last)
        return in_dtype(self.model(converted), self.dtype, input.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Network":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return self


class Eager(Engine):
    name = "eager"

    def build(self, model: nn.Module, example: Tensor, setting: Setting) -> Any:
        return Network(cast_to(copy.deepcopy(model).eval(), setting), setting)

    def build_layer(self, layer: nn.Module, images: Tensor, setting: Setting) -> Any:
        images = images.to(setting.dtype, memory_format=FORMATS[setting.channels_last])
        return partial(cast_to(copy.deepcopy(layer), setting), images)


def cast_to(model: nn.Module, setting: Setting) -> nn.Module:
    """In place; BatchNorms keep their precision, and so does what has another than the first."""
    own = dtype_of(model)
    for module in model.modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None and tensor.dtype == own:
                    tensor.data = tensor.data.to(setting.dtype)
    return model.to(memory_format=FORMATS[setting.channels_last])


class CompiledRunner(Runner):
    """For inputs of the example's shape, dtype and device alone."""

    def __init__(self, network: Network, example: Tensor) -> None:
        self.network = network
        self.situation = example.shape, example.dtype, example.device

    def serves(self, input: Tensor) -> bool:
        return (input.shape, input.dtype, input.device) == self.situation

    def __call__(self, input: Tensor) -> Tensors:
        if self._live is None:
            self._live = compiled_for(self.network, input)
        output = self._live(input)
        # the next replay of a CUDA graph writes over its outputs
        return pytree.tree_map_only(Tensor, torch.clone, output) if input.is_cuda else output


class Compiled(Eager):
    """With weights as constants; on GPUs, kernels are replayed as a CUDA graph.

    Layers are measured uncompiled, as each would take a second to compile.
    """

    name = "compiled"
    measures_layers = False

    def build(self, model: nn.Module, example: Tensor, setting: Setting) -> Any:
        runner = CompiledRunner(super().build(model, example, setting), example)
        runner(example)
        return runner


@torch.no_grad()
def compiled_for(network: nn.Module, example: Tensor) -> Callable[[Tensor], Tensors]:
    """``network`` through torch.compile, compiled when returned."""
    from torch._dynamo import config  # takes a second to import

    on_cpu = example.device.type == "cpu"
    options: dict[str, Any] = {"freezing": True} if on_cpu else {"triton.cudagraphs": True}
    compiled: Callable[[Tensor], Tensors] = torch.compile(network, dynamic=False, options=options)
    # by itself, torch.compile stops after eight networks, since they share the code of Network
    with config.patch(recompile_limit=1000, accumulated_recompile_limit=1000):
        compiled(example)
    return compiled
