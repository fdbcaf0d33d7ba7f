"""The figures of one check, with when, on what and how long: results/CHECK.json."""

from __future__ import annotations

import datetime
import json
import platform
from pathlib import Path
from typing import Any

import torch

from benchmarks.records import current_commit, machine_class

RESULTS = Path(__file__).resolve().parent / "results"


def write(name: str, figures: dict[str, Any], seconds: float) -> None:
    """Put these figures in the place of the former ones."""
    record = {
        "format": "bsconv reliability 1",
        "date": datetime.date.today().isoformat(),
        "machine": machine_class(),
        "commit": current_commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seconds": round(seconds),
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read(name: str) -> dict[str, Any] | None:
    """The last record of that check, None if there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
