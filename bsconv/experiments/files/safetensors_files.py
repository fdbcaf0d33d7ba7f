"""Safetensors files that say what they hold, with a checksum over all of it.

The format itself has none, so nobody would notice a weight that a changed bit made another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .json_files import parse_json

KEY = "bsconv"  # of the metadata; its value is a JSON object
ABOUT = {"num_classes", "config"}  # its entries
CLASSES = "classes"  # another entry, the names in order, where they are known
PLAN = "plan"  # another entry, of networks in which each layer has a form of its own
CHECKSUM = "sha256"  # another entry, which files of earlier versions lack


def packed(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """The content of a file that holds ``tensors`` and, as JSON, ``about`` with the keys ABOUT."""
    from safetensors.torch import save

    # safetensors refuses shared memory
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    values = {**about, CHECKSUM: _checksum(own, about)}
    # one key: safetensors promises no order of keys, and equal runs must give equal bytes
    return save(own, metadata={KEY: json.dumps(values, sort_keys=True)})


def unpacked(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The tensors in a safetensors file, and what it says about them; None where bsconv did not.

    ValueError where the file is damaged or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    try:
        # missing or unreadable: open raises OSError as the system says it
        with open(path, "rb"), safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file") from error
    if KEY not in metadata:
        return tensors, None
    try:
        about = parse_json(metadata[KEY])
        if not isinstance(about, dict) or about.keys() - {CHECKSUM, PLAN, CLASSES} != ABOUT:
            raise ValueError(f"it is not a JSON object of {' and '.join(sorted(ABOUT))}")
    except ValueError as error:
        raise ValueError(f"{path} is damaged: its metadata cannot be read ({error})") from error
    checksum = about.pop(CHECKSUM, None)
    if checksum is not None and checksum != _checksum(tensors, about):
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
