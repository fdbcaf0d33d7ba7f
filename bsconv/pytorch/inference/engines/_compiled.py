"""torch.compile."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ._eager import Eager, Network
from ._engine import Runner, Setting, Tensors


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
    """``network`` through torch.compile; compiled when returned. Raises what compilers raise."""
    from torch._dynamo import config  # takes a second to import

    on_cpu = example.device.type == "cpu"
    options: dict[str, Any] = {"freezing": True} if on_cpu else {"triton.cudagraphs": True}
    compiled: Callable[[Tensor], Tensors] = torch.compile(network, dynamic=False, options=options)
    # by itself, torch.compile stops after eight networks, since they share the code of Network
    with config.patch(recompile_limit=1000, accumulated_recompile_limit=1000):
        compiled(example)
    return compiled
