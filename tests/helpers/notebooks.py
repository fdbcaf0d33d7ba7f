"""The notebooks and the program that runs them."""

import importlib.util
import json
from pathlib import Path
from typing import Any

from helpers.paths import ROOT

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))

spec = importlib.util.spec_from_file_location("run_all", FOLDER / "run_all.py")
run_all = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_all)


def cells_of(path: Path) -> list[dict[str, Any]]:
    """The cells, each with its tags, and its source in one piece."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        cell["source"] = "".join(cell["source"])
        cell["tags"] = cell["metadata"].get("tags", [])
    return cells
