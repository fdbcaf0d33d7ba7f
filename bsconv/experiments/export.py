"""Models as files that other programs run, and these files as functions of images.

Files are ONNX, or exported programs of torch; they run on the CPU.
"""

import contextlib
import copy
import importlib
import importlib.util
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..basics.errors import one_line
from ..engines import onnx_model
from .files.checkpoints import check_writable, write_atomically
from .files.json_files import holding
from .files.torch_files import check_archive

FORMATS = {"onnx": ".onnx", "exported-program": ".pt2"}  # and their suffixes
ONNX_LIMIT = 2_000_000_000  # bytes of weights in one file, whose lengths are 32 bits, signed
# "location", first field of what names another file, however protobuf may write it
ELSEWHERE = re.compile(rb"(\x0a|\x8a\x80*\x00)(\x08|\x88\x80*\x00)location")


def check_export(path: str | os.PathLike[str], format: str) -> None:
    """ValueError or OSError with one line where :func:`export_model` could not write ``path``."""
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

    ``format`` is "onnx", one file with the weights inside, whose input is called "images" and whose
    output "logits"; or "exported-program", for ``torch.export.load``. ``example_input`` has the
    shape that the file is for, (N, C, H, W); with ``dynamic_batch``, N may be any number from 1,
    with ``dynamic_size`` H and W any that the model can take. An ONNX file keeps ``notes`` as its
    metadata, each in JSON; nothing in the file says where or when it was made. ValueError and
    OSError as from :func:`check_export`, and for a model that cannot be exported.
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


def load_exported(path: str | os.PathLike[str]) -> Callable[[Tensor], Tensor]:
    """What the file ``path`` of :func:`export_model` computes, as a function of its images.

    Torch runs .pt2 files, ONNX Runtime all others. Only open .pt2 files that you trust:
    ``torch.export.load`` runs code that such a file may hold. ValueError for a file
    that is damaged or takes weights from other files.
    """
    path = Path(path)
    return _program(path) if engine_of(path) == "torch" else _OnnxFunction(path)


def engine_of(path: str | os.PathLike[str]) -> str:
    """The package that runs the file."""
    return "torch" if Path(path).suffix == ".pt2" else "onnxruntime"


def _program(path: Path) -> Callable[[Tensor], Tensor]:
    with open(path, "rb") as file, holding("exported program", path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of how it reads
        check_archive(file)
        file.seek(0)
        program = torch.export.load(file)
    return torch.no_grad()(program.module())


class _OnnxFunction:
    """``notes``: the metadata of the file, texts by their keys."""

    def __init__(self, path: Path) -> None:
        runtime: Any = importlib.import_module("onnxruntime")
        content = path.read_bytes()
        if ELSEWHERE.search(content):  # old runtimes would open any file
            raise ValueError(f"{path} takes weights from other files, which bsconv export does not")
        with holding("network for images", path):
            self.session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
            (images,) = self.session.get_inputs()
            self.batch_size = images.shape[0] if isinstance(images.shape[0], int) else None
            self.notes: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.path, self.input = path, images.name

    def __call__(self, values: Tensor) -> Tensor:
        """Of any number of images; the last of several batches of a fixed size is filled up."""
        size = self.batch_size or max(1, len(values))
        filled = torch.cat([values, values.new_zeros(-len(values) % size, *values.shape[1:])])
        try:
            parts = [
                torch.from_numpy(self.session.run(None, {self.input: batch.numpy()})[0])
                for batch in torch.split(filled, size)
            ]
        except Exception as error:  # the runtime has exceptions of its own
            shape, reason = " x ".join(map(str, values.shape[1:])), one_line(error)
            raise ValueError(f"{self.path} cannot take images of {shape} ({reason})") from error
        return torch.cat(parts)[: len(values)]
