"""Eager PyTorch."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ._engine import Engine, Runner, Setting, Tensors, dtype_of

FORMATS = {False: torch.contiguous_format, True: torch.channels_last}


class Network(nn.Module, Runner):
    """A model between the conversion of its input to ``dtype`` and memory format, and back."""

    def __init__(self, model: nn.Module, setting: Setting) -> None:
        super().__init__()
        self.model = model
        self.dtype, self.channels_last = setting

    def forward(self, input: Tensor) -> Tensors:
        converted = input.to(self.dtype)
        if self.channels_last:
            converted = converted.contiguous(memory_format=torch.channels_last)
        return in_dtype(self.model(converted), input.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Network":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return self


class Eager(Engine):
    name = "eager"

    def build(self, model: nn.Module, example: Tensor, setting: Setting) -> Network:
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


def in_dtype(output: Tensors, dtype: torch.dtype) -> Tensors:
    """``output`` with all floating-point tensors in it in ``dtype``."""

    def cast(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    if isinstance(output, Tensor):  # in a fifth of the time
        return cast(output)
    return pytree.tree_map_only(Tensor, cast, output)
