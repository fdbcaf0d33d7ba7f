"""Networks and layer plans as ONNX models in memory, and what the engines that read them share."""

import copy
import importlib
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..._tools.convs import Conv
from ._eager import in_dtype
from ._engine import Engine, Runner, Setting, Tensors

OPSET = 18  # the oldest that torch's exporter writes unconverted, so the one that most can run
INPUT = "images"

_written: "WeakKeyDictionary[nn.Module, tuple[bytes, Any]]" = WeakKeyDictionary()


def written_once(model: nn.Module, example: Tensor) -> tuple[bytes, Any]:
    """``model`` in float32 as an ONNX model, and what it returns for the example.

    The weights are inside; the input is "images", its numbers of images, rows and columns are free
    wherever the model leaves them free. The outputs are the tensors that the model returns, in
    order. Kept for other engines as long as ``model`` lives, which must not change. Raises whatever
    torch's exporter does where it cannot follow the model.
    """
    if model not in _written:
        network, example = copy.deepcopy(model).eval().float(), example.float()
        several = torch.cat([example] * 2) if len(example) == 1 else example  # 1 is a constant
        sizes = enumerate(several.shape)
        free = {dim: torch.export.Dim.AUTO for dim, size in sizes if dim != 1 and size > 1}
        try:
            content = _exported(network, several, free)
        except Exception:  # of the many that exporters raise
            content = _exported(network, example, {})
        _written[model] = content, network(example)
    return _written[model]


def _exported(network: nn.Module, example: Tensor, free: dict[int, Any]) -> bytes:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        network = _TensorsOnly(network)
        program = torch.export.export(network, (example,), dynamic_shapes=(free,))
        return bytes(onnx_model(program).SerializeToString())


def onnx_model(program: torch.export.ExportedProgram, **options: Any) -> Any:
    """The program as onnx.ModelProto, without notes on its origin, which take half a small file.

    Raises whatever torch's exporter does, which has further ``options``.
    """
    exported: Any = torch.onnx.export(
        program, dynamo=True, verbose=False, opset_version=OPSET, input_names=[INPUT], **options
    )
    model = exported.model_proto
    for part in (model.graph, *model.graph.node, *model.graph.value_info):
        part.ClearField("metadata_props")
    return model


class _TensorsOnly(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Tensor]:
        return [leaf for leaf in pytree.tree_leaves(self.model(images)) if isinstance(leaf, Tensor)]


def chain_to_onnx(layer: nn.Module, size: Sequence[int]) -> bytes | None:
    """A convolution, or several in a row, as an ONNX model for inputs of ``size``.

    Without torch's exporter, which takes seconds a model. None for other layers than convolutions
    padded with zeros.
    """
    onnx: Any = importlib.import_module("onnx")
    make, array = onnx.helper, onnx.numpy_helper.from_array
    nodes, weights, last = [], [], INPUT
    for number, conv in enumerate(layer if isinstance(layer, nn.Sequential) else [layer]):
        if not isinstance(conv, Conv) or conv.padding_mode != "zeros" or conv.padding == "same":
            return None
        tensors = {f"{name}{number}": tensor for name, tensor in conv.named_parameters()}
        weights += [array(tensor.float().cpu().numpy(), name) for name, tensor in tensors.items()]
        padding = (0,) * len(size[2:]) if isinstance(conv.padding, str) else conv.padding
        geometry = {"strides": conv.stride, "dilations": conv.dilation, "pads": padding * 2}
        names, last = [last, *tensors], f"y{number}"
        nodes.append(make.make_node("Conv", names, [last], group=conv.groups, **geometry))
    images = make.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, size)
    outputs = make.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None)
    graph = make.make_graph(nodes, "layer", [images], [outputs], weights)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", OPSET)], ir_version=8)
    return bytes(model.SerializeToString())


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
        runner = self.runner(*written_once(model, example), example, setting)
        runner(example)
        return runner

    def build_layer(self, layer: nn.Module, images: Tensor, setting: Setting) -> Any:
        content = chain_to_onnx(layer, images.shape)
        return content and partial(self.runner(content, images, images, setting).compute, images)
