"""Exported files as functions of tensors, run by ONNX Runtime, OpenVINO or torch, on the CPU."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...pytorch._tools.errors import one_line
from ..files.torch_files import check_archive

Function = Callable[[Tensor], Tensor]
# "location", first field of what names another file, however protobuf may write it
ELSEWHERE = re.compile(rb"(\x0a|\x8a\x80*\x00)(\x08|\x88\x80*\x00)location")


def load_exported(
    path: str | os.PathLike[str],
    engine: str | None = None,
    *,
    threads: int | None = None,
    bfloat16: bool = False,
) -> Function:
    """What the file ``path`` of :func:`export_model` computes, as a function of its images.

    ``engine`` is one of ``ENGINES``, by default that of the suffix. ``threads`` is up to the engine
    where it is None. With ``bfloat16``, OpenVINO rounds to that; the others stay as they are.

    Only open .pt2 files that you trust: ``torch.export.load`` runs code that such a file may hold.

    Raises ValueError with one line for an unknown engine, one that is not installed, and a file
    that is damaged or takes weights from other files.
    """
    engine = engine or default_engine(path)
    if engine not in ENGINES:
        raise ValueError(f"engine needs to be {' or '.join(map(repr, ENGINES))}, got {engine!r}")
    if not is_installed(engine):
        raise ValueError(f"running {path} needs the package {engine}: pip install {engine}")
    return ENGINES[engine](Path(path), threads, bfloat16)


def default_engine(path: str | os.PathLike[str]) -> str:
    return "torch" if Path(path).suffix == ".pt2" else "onnxruntime"


def is_installed(engine: str) -> bool:
    return importlib.util.find_spec(engine) is not None


def _torch(path: Path, threads: int | None, bfloat16: bool) -> Function:
    with open(path, "rb") as file:
        try:
            check_archive(file)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of how it reads
                program = torch.export.load(file)
        except MemoryError:
            raise
        except Exception as error:  # a damaged file may raise anything at all
            reason = one_line(error)
            raise ValueError(f"{path} is damaged, or not an exported program: {reason}") from error
    return torch.no_grad()(program.module())


def _onnxruntime(path: Path, threads: int | None, bfloat16: bool) -> Function:
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    content = _onnx(path)
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        (images,) = session.get_inputs()
    except Exception as error:  # the runtime has exceptions of its own
        reason = one_line(error)
        raise ValueError(f"{path} is damaged, or not a network for images: {reason}") from error
    return lambda values: torch.from_numpy(session.run(None, {images.name: values.numpy()})[0])


def _onnx(path: Path) -> bytes:
    """The content of a file that is whole by itself: OpenVINO, and old runtimes, open any other."""
    content = path.read_bytes()
    if ELSEWHERE.search(content):
        raise ValueError(f"{path} takes weights from other files, which bsconv export does not")
    return content


def _openvino(path: Path, threads: int | None, bfloat16: bool) -> Function:
    openvino: Any = importlib.import_module("openvino")
    hints: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
    }
    if threads is not None:
        hints["INFERENCE_NUM_THREADS"] = threads
    _onnx(path)
    request = openvino.Core().compile_model(path, "CPU", hints).create_infer_request()
    # the result is the engine's own memory, which the next call writes over
    return lambda values: torch.from_numpy(request.infer([values.numpy()])[0].copy())


ENGINES = {"torch": _torch, "onnxruntime": _onnxruntime, "openvino": _openvino}
