"""Files of weights: the tensors of a network by their names, read without running code from it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor

from .habits import state_dict_in
from .safetensors_files import unpacked
from .torch_files import read_torch_file

WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".tar", ".pkl")  # usual suffixes
FORMAT = "bsconv training checkpoint 1"
OTHERWISE = "holds more than weights, which bsconv does not run: save a state dict"


def is_weight_file(name: str) -> bool:
    """Whether this is the name of a file, by its suffix or because it is there."""
    return name.endswith(WEIGHT_FILES) or Path(name).is_file()


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of the file ``path`` by their names, on the CPU.

    Reads safetensors and what ``torch.save`` made of a state dict, whatever the suffix: alone or
    within a checkpoint, with whatever wrappers and usual programs put before the names. Entries
    other than tensors are left out. A warning says which weights are taken where a file holds them
    averaged as well. No code of the file runs.

    Raises OSError for a file that is missing or unreadable, ValueError with one line for one that
    is damaged, holds more than weights, holds no state dict, or a weight twice. A changed bit is
    found by the checksums that ``torch.save`` and :mod:`bsconv` write; other safetensors files have
    none.
    """
    return read_noted_weights(Path(path))[0]


def read_noted_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The same, and what :mod:`bsconv` noted in the file about them; None where it did not."""
    content: Any
    if _is_safetensors(path):
        content, about = unpacked(path)
    else:
        content, about = read_torch_file(path, OTHERWISE), None
        if isinstance(content, dict) and content.get("format") == FORMAT:
            about = {key: value for key, value in content.items() if key != "model"}
    try:
        return state_dict_in(content), about
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error


def _is_safetensors(path: Path) -> bool:
    """By the suffix, or by the JSON object after the eight bytes of its length."""
    with open(path, "rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"
