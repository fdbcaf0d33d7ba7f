"""Files of weights: the tensors of a network by their names, read without running code from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .safetensors_files import unpacked
from .torch_files import read_torch_file

WEIGHT_FILES = (".safetensors", ".pt", ".pth")  # their suffixes
OTHERWISE = "holds more than weights, which bsconv does not run: save a state dict"
_WRAPPED_AS = ("state_dict", "model")  # keys of the weights in a checkpoint


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of the file ``path`` by their names, on the CPU.

    Reads safetensors (by the suffix) and what ``torch.save`` made of a state dict, alone or within
    a checkpoint, as "state_dict" or "model". Entries other than tensors are left out, and the
    "module." that wrappers put before all names is removed. No code of the file runs.

    Raises OSError for a file that is missing or unreadable, ValueError with one line for one that
    is damaged, holds more than weights, or holds no state dict. A changed bit is found by the
    checksums that ``torch.save`` and :mod:`bsconv` write; other safetensors files have none.
    """
    return read_noted_weights(Path(path))[0]


def read_noted_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The same, and what :mod:`bsconv` noted in the file about them; None where it did not."""
    content: Any
    if path.suffix == ".safetensors":
        content, about = unpacked(path)
    else:
        content, about = read_torch_file(path, OTHERWISE), None
    inner = (content[key] for key in _WRAPPED_AS if isinstance(content, dict) and key in content)
    state = next(inner, content)
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict")
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not all(isinstance(key, str) for key in tensors):
        raise ValueError(f"{path} holds tensors without names, not a state dict")
    torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(tensors, "module.")
    return tensors, about
