"""Networks and layer plans as ONNX models in memory."""

import copy
import importlib
import re
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ._engine import Tensors

OPSET = 18  # the oldest that torch's exporter writes unconverted, so the one that most can run
INPUT = "images"
CONVS = nn.Conv1d, nn.Conv2d, nn.Conv3d


def network_to_onnx(model: nn.Module, example: Tensor) -> tuple[bytes, Tensors, bool]:
    """``model`` in float32 as an ONNX model; its output; whether sizes decide nothing in it."""
    network, example = copy.deepcopy(model).eval().float(), example.float()
    several = torch.cat([example] * 2) if len(example) == 1 else example  # 1 is a constant
    sizes = enumerate(several.shape)  # those of images, rows and columns stay free if they can
    free = {dim: torch.export.Dim.AUTO for dim, size in sizes if dim != 1 and size > 1}
    try:
        content, any_size = _exported(network, several, free)
    except Exception:  # of the many that exporters raise
        content, any_size = _exported(network, example, {})
    return content, network(example), any_size


def _exported(network: nn.Module, example: Tensor, free: dict[int, Any]) -> tuple[bytes, bool]:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        program = torch.export.export(_TensorsOnly(network), (example,), dynamic_shapes=(free,))
        rules = getattr(program, "_guards_code", [""]) if free else [""]
        any_size = all(re.search(r"!= 1$|>= \d$", rule) for rule in rules)  # layers' own bounds
        calls = (node for node in program.graph.nodes if node.op == "call_function")
        pools = (call for call in calls if "adaptive" in str(call.target))
        any_size &= all({*pool.args[1]} == {1} for pool in pools)  # windows of the example's size
        return bytes(onnx_model(program).SerializeToString()), any_size


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
        leaves = pytree.tree_leaves(self.model(images))
        tensors = (leaf for leaf in leaves if isinstance(leaf, Tensor))
        return [leaf.clone() if leaf is images else leaf for leaf in tensors]  # it has one name


def chain_to_onnx(layer: nn.Module, size: Sequence[int]) -> bytes | None:
    """Convolutions in a row for inputs of ``size``; None for all but those padded with zeros.

    Without torch's exporter, which takes seconds a model.
    """
    onnx: Any = importlib.import_module("onnx")
    make, array = onnx.helper, onnx.numpy_helper.from_array
    nodes, weights, last = [], [], INPUT
    for number, conv in enumerate(layer if isinstance(layer, nn.Sequential) else [layer]):
        if not isinstance(conv, CONVS) or conv.padding_mode != "zeros" or conv.padding == "same":
            return None
        tensors = {f"{name}{number}": tensor.detach() for name, tensor in conv.named_parameters()}
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
