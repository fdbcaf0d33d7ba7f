"""An ONNX model in 8-bit integers, by the ranges that unlabelled images give its activations."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def in_int8(content: bytes, images: Tensor, batch_size: int) -> bytes:
    """The ONNX model ``content``, whose input is "images", with its convolutions in int8 (QDQ).

    Weights are rounded by output channel, activations to what their smallest and largest values on
    ``images`` allow. The first convolution, depthwise ones and the classifier stay in float32: they
    cost little, and a blueprint network loses a point of accuracy by them.
    """
    tools: Any = importlib.import_module("onnxruntime.quantization")
    prepare: Any = importlib.import_module("onnxruntime.quantization.shape_inference")
    with tempfile.TemporaryDirectory() as folder, _silence():
        given, ready, done = (str(Path(folder) / f"{name}.onnx") for name in "abc")
        Path(given).write_bytes(content)
        # folds, and writes down shapes; the exporter has left no symbolic ones to work out
        prepare.quant_pre_process(given, ready, skip_symbolic_shape=True)
        tools.quantize_static(
            ready,
            done,
            _Batches(images, batch_size),
            quant_format=tools.QuantFormat.QDQ,
            per_channel=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            calibrate_method=tools.CalibrationMethod.MinMax,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            nodes_to_exclude=_kept(ready),
        )
        return Path(done).read_bytes()


class _Batches:
    """Hands the images out as ONNX Runtime asks for them; an incomplete last batch is left out."""

    def __init__(self, images: Tensor, batch_size: int) -> None:
        whole = images[: len(images) // batch_size * batch_size]
        self._batches = iter(torch.split(whole, batch_size))

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch.contiguous().numpy()}


def _kept(path: str) -> list[str]:
    """Names of the nodes that stay in float32."""
    onnx: Any = importlib.import_module("onnx")
    nodes = onnx.load(path).graph.node
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    kept = [node for node in nodes if node.op_type in ("Gemm", "MatMul")]
    kept += convolutions[:1]
    for node in convolutions:
        if any(each.name == "group" and each.i > 1 for each in node.attribute):
            kept.append(node)
    return [node.name for node in kept]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
