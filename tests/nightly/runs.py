"""Small training runs on the command line, and whether two of them are the same to the last bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bsconv.experiments.files.checkpoints import CHECKPOINT, METRICS, MODEL, read_checkpoint

# these decide every bit of a run
SETTINGS = (
    "--model=cifar_resnet20_bsconvs_p1d4",
    "--dataset=synthetic",
    "--seed=1",
    "--train-limit=48",
    "--test-limit=32",
    "--batch-size=16",
    "--device=cpu",
    "--recipe=fast",
)
ALONE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "BSCONV_OFFLINE": "1"}


@dataclass(frozen=True)
class Runs:
    """Runs that are all the same but for their folders."""

    epochs: int = 24

    def start(self, out: Path) -> subprocess.Popen[str]:
        """Begin the run in ``out``, or resume it, in a process of its own."""
        arguments = [*SETTINGS, "--epochs", str(self.epochs), "--out", str(out), "--resume"]
        return subprocess.Popen(
            [sys.executable, "-m", "bsconv", "train", *arguments],
            env={**os.environ, **ALONE},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, out: Path) -> None:
        """Let the run in ``out`` come to its end; RuntimeError where it does not."""
        process = self.start(out)
        _, errors = process.communicate(timeout=600)
        if process.returncode != 0:
            raise RuntimeError(f"an undisturbed run ended in {process.returncode}: {errors}")


def check_refused(code: int, errors: str) -> None:
    """AssertionError where a command did not fail with one clear line."""
    lines = errors.splitlines()
    if code <= 0 or len(lines) != 1 or not lines[0].startswith("bsconv"):
        raise AssertionError(f"not one clear line, with a status above 0, but {code}: {errors}")


def check_same(one: Path, other: Path) -> None:
    """AssertionError where two finished runs differ, in more than folders and durations."""
    if (one / MODEL).read_bytes() != (other / MODEL).read_bytes():
        raise AssertionError(f"{MODEL} in {one} and {other} differ")
    if _metrics(one) != _metrics(other):
        raise AssertionError(f"{METRICS} in {one} and {other} differ")
    first, second = (read_checkpoint(folder / CHECKPOINT) for folder in (one, other))
    for state in (first, second):
        state["config"].pop("out")
        for row in state["history"]:
            row.pop("seconds")
    if not equal(first, second):
        raise AssertionError(f"{CHECKPOINT} in {one} and {other} differ")


def _metrics(folder: Path) -> list[dict[str, Any]]:
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
