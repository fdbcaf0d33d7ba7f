"""Record the long training of notebook 05: its cells run in full mode, on this machine.

usage: python results/from_scratch/record.py "2 CPU cores (x86-64)" COMMIT
"""

import datetime
import json
import os
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
NOTEBOOK = HERE.parents[1] / "notebooks" / "05_build_from_scratch.ipynb"
LAST = "losses, distances, accuracies = {}, {}, {}"  # the cell that trains


def main(machine: str, commit: str) -> None:
    os.environ |= {"BSCONV_MODE": "full", "MPLBACKEND": "agg"}
    found: dict[str, object] = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            exec(source, found)
        if LAST in source:
            break
    losses = {label: runs.tolist() for label, runs in found["losses"].items()}
    record = {
        "machine": machine,
        "commit": commit,
        "torch": torch.__version__,
        "date": f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}",
        "seeds": [0, 1, 2],
        "steps": found["steps"],
        "accuracies": found["accuracies"],
        "losses": losses,
    }
    (HERE / "small_net.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
