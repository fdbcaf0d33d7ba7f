"""Exported files as functions of images, run on the CPU by what their suffix stands for."""

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

from ...basics.errors import one_line
from ..files.torch_files import check_archive

Function = Callable[[Tensor], Tensor]
# "location", first field of what names another file, however protobuf may write it
ELSEWHERE = re.compile(rb"(\x0a|\x8a\x80*\x00)(\x08|\x88\x80*\x00)location")


def load_exported(path: str | os.PathLike[str]) -> Function:
    """What the file ``path`` of :func:`export_model` computes, as a function of its images.

    Torch runs .pt2 files, ONNX Runtime all others. Only open .pt2 files that you trust:
    ``torch.export.load`` runs code that such a file may hold.

    Raises ValueError with one line where ONNX Runtime is not installed, and for a file that is
    damaged or takes weights from other files.
    """
    path, engine = Path(path), engine_of(path)
    if not is_installed(engine):
        raise ValueError(f"running {path} needs the package {engine}: pip install 'bsconv[onnx]'")
    return _program(path) if engine == "torch" else _OnnxFunction(path)


def engine_of(path: str | os.PathLike[str]) -> str:
    """The package that runs the file."""
    return "torch" if Path(path).suffix == ".pt2" else "onnxruntime"


def is_installed(engine: str) -> bool:
    return importlib.util.find_spec(engine) is not None


def _program(path: Path) -> Function:
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


class _OnnxFunction:
    """``notes``: the metadata of the file, texts by their keys."""

    def __init__(self, path: Path) -> None:
        runtime: Any = importlib.import_module("onnxruntime")
        content = path.read_bytes()
        if ELSEWHERE.search(content):  # old runtimes would open any file
            raise ValueError(f"{path} takes weights from other files, which bsconv export does not")
        try:
            self.session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
            (images,) = self.session.get_inputs()
            self.batch_size = images.shape[0] if isinstance(images.shape[0], int) else None
            self.notes: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        except Exception as error:  # the runtime has exceptions of its own
            reason = one_line(error)
            raise ValueError(f"{path} is damaged, or not a network for images: {reason}") from error
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
        except Exception as error:  # as above
            shape, reason = " x ".join(map(str, values.shape[1:])), one_line(error)
            raise ValueError(f"{self.path} cannot take images of {shape} ({reason})") from error
        return torch.cat(parts)[: len(values)]
