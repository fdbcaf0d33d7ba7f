"""What the engines that read ONNX models share."""

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ._eager import in_dtype
from ._engine import Engine, Runner, Setting, Tensors
from ._onnx import chain_to_onnx, written_once


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
    grid: ClassVar[int] = 16
    runner: ClassVar[type[OnnxRunner]]

    def build(self, model: nn.Module, example: Tensor, setting: Setting) -> OnnxRunner:
        runner = self.runner(*written_once(model, example), example, setting)
        runner(example)
        return runner

    def build_layer(self, layer: nn.Module, images: Tensor, setting: Setting) -> Any:
        content = chain_to_onnx(layer, images.shape)
        return content and partial(self.runner(content, images, images, setting).compute, images)
