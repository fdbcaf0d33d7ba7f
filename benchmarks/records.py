"""A file of figures: results/DATE-MACHINE.json."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from .published import ROOT
from .timing import Comparison

RESULTS = Path(__file__).resolve().parent / "results"


class Record:
    """What was measured by one command, with what it was measured on."""

    def __init__(self, machine: str | None = None, folder: Path = RESULTS) -> None:
        self.machine = machine or machine_class()
        self.folder = folder
        self.comparisons: list[Comparison] = []
        self.path: Path | None = None  # where it is written, once it is

    def add(self, comparison: Comparison) -> None:
        self.comparisons.append(comparison)

    def write(self) -> None:
        """All comparisons so far; files of earlier commands are never written over."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.path is None:
            self.path = self._free_path()
        self.path.write_text(json.dumps(self.to_dict(), indent=1) + "\n")

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": "bsconv benchmark 1",
            **circumstances(self.machine),
            "comparisons": [_figures(comparison) for comparison in self.comparisons],
        }

    def _free_path(self) -> Path:
        words = re.sub(r"[^a-z0-9]+", "-", self.machine.lower()).strip("-")
        name = f"{datetime.date.today().isoformat()}-{words}"
        path, number = self.folder / f"{name}.json", 1
        while path.exists():
            number += 1
            path = self.folder / f"{name}-{number}.json"
        return path


def circumstances(machine: str | None = None) -> dict[str, Any]:
    """On what figures were measured, and by what."""
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    machine = machine or machine_class()
    return {"machine": machine, "commit": current_commit(), "versions": versions}


def machine_class() -> str:
    """Cores, kind of processor and GPU: what figures depend on, not which machine it is."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    words = f"{cores} CPU cores ({platform.machine()})"
    if torch.cuda.is_available():
        words = f"{torch.cuda.get_device_name()}, {words}"
    return words


def _figures(comparison: Comparison) -> dict[str, Any]:
    others = [name for name in comparison.seconds if name != comparison.reference]
    ratios = {name: dataclasses.asdict(comparison.ratio(name)) for name in others}
    return {**dataclasses.asdict(comparison), "ratios": ratios}


def current_commit() -> str | None:
    """Of this project, with a plus sign if files were changed since; None without git."""
    try:
        command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return ended.stdout.strip()
