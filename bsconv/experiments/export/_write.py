"""Models as files that other programs run: ONNX, or an exported program of torch."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...basics.errors import one_line
from ...pytorch.inference.engines import onnx_model
from ..files.checkpoints import check_writable, write_atomically

FORMATS = {"onnx": ".onnx", "exported-program": ".pt2"}  # and their suffixes
ONNX_LIMIT = 2_000_000_000  # bytes of weights in one file, whose lengths are 32 bits, signed


def check_export(path: str | os.PathLike[str], format: str) -> None:
    """ValueError or OSError with one line where :func:`export_model` could not write ``path``."""
    if format not in FORMATS:
        names = " or ".join(map(repr, FORMATS))
        raise ValueError(f"format needs to be {names}, got {format!r}")
    if Path(path).suffix != FORMATS[format]:
        raise ValueError(f"a file of format {format} ends in {FORMATS[format]}, got {path}")
    for package in ("onnx", "onnxscript") if format == "onnx" else ():
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"ONNX needs the package {package}: pip install 'bsconv[onnx]'")
    check_writable(path)


def export_model(
    model: nn.Module,
    example_input: Tensor,
    path: str | os.PathLike[str],
    *,
    format: str,
    dynamic_batch: bool = False,
    dynamic_size: bool = False,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write what ``model`` computes in eval mode to ``path``, whole or not at all.

    ``format`` is "onnx", one file with the weights inside, of opset 18, whose input is called
    "images" and whose output "logits"; or "exported-program", for ``torch.export.load``.
    ``example_input`` has the shape that the file is for, (N, C, H, W); with ``dynamic_batch``, N
    may be any number from 1, with ``dynamic_size`` H and W any that the model can take. An ONNX
    file keeps ``notes`` as its metadata, each in JSON. The model is left as it was; nothing in the
    file says where or when it was made.

    ValueError and OSError as from :func:`check_export`, and for a model that cannot be exported.
    """
    check_export(path, format)
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    if format == "onnx" and weights > ONNX_LIMIT:
        raise ValueError(f"one ONNX file takes {ONNX_LIMIT:,} bytes of weights, got {weights:,}")
    # from the CPU: a program made on a GPU names it, and takes 65,535 images at most
    twin, example_input = copy.deepcopy(model).eval().cpu(), example_input.cpu()
    if dynamic_batch and len(example_input) == 1:
        example_input = torch.cat([example_input] * 2)  # a dimension of 1 is taken for always 1
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of the exporter, about itself and what it uses
            free: dict[int, Any] = {0: torch.export.Dim("batch")} if dynamic_batch else {}
            free |= dict.fromkeys((2, 3), torch.export.Dim.AUTO) if dynamic_size else {}
            shapes = (free,)
            program = torch.export.export(twin, (example_input,), dynamic_shapes=shapes)
            content = _onnx(program, shapes, notes or {}) if format == "onnx" else _saved(program)
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # the exporter may raise anything at all on what it cannot follow
        what = f"{format} for batches of any size" if dynamic_batch else format
        name, reason = type(model).__name__, one_line(error)
        raise ValueError(f"{name} cannot be exported as {what}: {reason}") from error
    write_atomically(path, content)


def _saved(program: torch.export.ExportedProgram) -> memoryview:
    program = program.run_decompositions({})  # as it is, parts under no_grad can't be read back
    for module in program.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # it names files of this machine
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getbuffer()


def _onnx(program: torch.export.ExportedProgram, shapes: Any, notes: Mapping[str, Any]) -> bytes:
    model = onnx_model(program, output_names=["logits"], dynamic_shapes=shapes)
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=json.dumps(value))
    return bytes(model.SerializeToString(deterministic=True))
