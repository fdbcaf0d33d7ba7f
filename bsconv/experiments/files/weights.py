"""Files of weights: the tensors of a network by their names, read without running code from it.

Ours are safetensors files that say what they hold, with a checksum over all of it: the format
itself has none, so nobody would notice a weight that a changed bit made another.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .habits import state_dict_in
from .json_files import holding
from .torch_files import read_torch_file

WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".tar", ".pkl")  # usual suffixes
FORMAT = "bsconv training checkpoint 1"
OTHERWISE = "holds more than weights, which bsconv does not run: save a state dict"
KEY = "bsconv"  # of the metadata; its value is a JSON object
CLASSES = "classes"  # an entry of it: the names in order, where they are known
PLAN = "plan"  # another, of networks in which each layer has a form of its own
CHECKSUM = "sha256"  # another, which files of earlier versions lack


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The tensors of the file ``path`` by their names, on the CPU, and what :mod:`bsconv` noted in
    it about them; None where it did not. No code of it runs.

    Reads safetensors and what ``torch.save`` made of a state dict, alone or within a checkpoint, by
    the names of :func:`state_dict_in`. ValueError for a file that is damaged, as far as it has
    checksums, or holds more than weights, none, or one twice.
    """
    if path.suffix.lower() == ".onnx":
        raise ValueError(f"{path} is an ONNX file, which bsconv predict and spectra take alone")
    if path.suffix.lower() == ".pt2":
        raise ValueError(f"{path} is an exported program: take the run or the ONNX file of it")
    with open(path, "rb") as file:  # a JSON object follows the eight bytes of its length
        safe = path.suffix == ".safetensors" or file.read(9)[8:] == b"{"
    content, about = _unpacked(path) if safe else (read_torch_file(path, OTHERWISE), None)
    if not safe and isinstance(content, dict) and content.get("format") == FORMAT:
        about = {key: value for key, value in content.items() if key != "model"}
    try:
        return state_dict_in(content), about
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error


def packed(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """The content of a file that holds ``tensors`` and, as JSON, what is noted ``about`` them."""
    from safetensors.torch import save

    # safetensors refuses shared memory
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    values = {**about, CHECKSUM: _checksum(own, about)}
    # one key: safetensors promises no order of keys, and equal runs must give equal bytes
    return save(own, metadata={KEY: json.dumps(values, sort_keys=True)})


def _unpacked(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file") from error
    if KEY not in metadata:
        return tensors, None
    with holding("notes of bsconv that can be read", path):
        about: dict[str, Any] = json.loads(metadata[KEY])
        noted = about.pop(CHECKSUM, None)
    if noted not in (None, _checksum(tensors, about)):
        raise ValueError(f"{path} is damaged: its checksum is wrong")
    return tensors, about


def _checksum(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """SHA-256 of ``about`` and of each tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
