"""Trained weights that come with the package.

A file each, with a note in JSON: its checksum, the number of classes, the settings of the run, and
the accuracy measured with this very file.
"""

import hashlib
import importlib
import json
from pathlib import Path

from torch import Tensor

FOLDER = Path(__file__).parents[2] / "weights"


def trained_weights(architecture: str, pretrained: str, num_classes: int) -> dict[str, Tensor]:
    """The state dict; ValueError for another name or number of classes, and for a damaged file."""
    known = sorted(path.parent.name for path in FOLDER.glob(f"*/{architecture.lower()}.json"))
    if pretrained not in known:
        there = f"there are {', '.join(map(repr, known))}" if known else "it has none"
        raise ValueError(
            f"there are no weights pretrained={pretrained!r} for '{architecture}'; {there}"
        )
    path = FOLDER / pretrained / f"{architecture.lower()}.safetensors"
    note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if note["num_classes"] != num_classes:
        raise ValueError(
            f"the weights pretrained={pretrained!r} of '{architecture}' need "
            f"num_classes={note['num_classes']}, got {num_classes=}"
        )
    content = path.read_bytes()
    found, expected = hashlib.sha256(content).hexdigest(), note["sha256"]
    if found != expected:
        raise ValueError(
            f"{path} is damaged: its SHA-256 needs to be {expected}, got {found}; "
            "install bsconv again"
        )
    try:
        safetensors = importlib.import_module("safetensors.torch")
    except ImportError as error:
        raise ImportError(
            "pretrained weights need the package safetensors: pip install safetensors"
        ) from error
    return dict(safetensors.load(content))
