"""Whether two finished runs are the same to the last bit, and whether a command failed plainly."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bsconv.experiments.files.checkpoints import CHECKPOINT, METRICS, MODEL, read_checkpoint


def check_refused(code: int, errors: str) -> None:
    """A command failed with one clear line."""
    lines = errors.splitlines()
    assert code > 0, errors
    assert len(lines) == 1, errors
    assert lines[0].startswith("bsconv")


def check_same(one: Path, other: Path) -> None:
    """Two finished runs differ in nothing but folders and durations."""
    assert (one / MODEL).read_bytes() == (other / MODEL).read_bytes()
    assert metrics_of(one) == metrics_of(other)
    first, second = (read_checkpoint(folder / CHECKPOINT) for folder in (one, other))
    for state in (first, second):
        state["config"].pop("out")
        for row in state["history"]:
            row.pop("seconds")
    assert equal(first, second), f"{CHECKPOINT} in {one} and {other} differ"


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [{name: row[name] for name in row if name != "seconds"} for row in rows]


def equal(one: Any, other: Any) -> bool:
    """The same tensors and values in the same structure, bit by bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)
