"""Run notebooks headless and store their outputs; no other tool makes stored outputs.

usage: python notebooks/run_all.py [NOTEBOOK ...]    02, 02_replace_convolutions; or all

Running an unchanged notebook again leaves the same bytes: where nothing changed but
durations that it prints, and what cells tagged "timing" print and draw, the notebook is
left as it was. So is one that fails. Cells without outputs get new ones in any case.
"""

import base64
import copy
import io
import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from PIL import Image

HERE = Path(__file__).resolve().parent
CELL_TIMEOUT = 600  # seconds
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"
DURATION = re.compile(r" *\b\d+(?:\.\d+)? ?(?:us|ms|s|min)\b")
MACHINE_PATH = re.compile(r"(?:/(?:home|root|Users|tmp|work)|\b[A-Z]:\\Users)[/\\]\S*")


class NotebookError(Exception):
    """A notebook that can't be stored; the message names the cell."""


def main(names: list[str]) -> int:
    os.environ.setdefault("BSCONV_MODE", "fast")
    try:
        paths = chosen(names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    failed = 0
    for path in paths:
        begin = time.perf_counter()
        try:
            verdict = "stored" if refresh(path) else "unchanged"
        except NotebookError as error:
            failed += 1
            verdict = f"FAILED and left as it was: {error}"
        print(
            f"{path.stem}: {time.perf_counter() - begin:.1f} s, {verdict}", flush=True
        )
    return 1 if failed else 0


def chosen(names: list[str]) -> list[Path]:
    """The notebooks of these paths, names or numbers; without names, all of them."""
    every = sorted(HERE.glob("[0-9][0-9]_*.ipynb"))
    paths = [] if names else every
    for name in names:
        wanted = Path(name)
        named = [path for path in every if wanted.stem in (path.stem, path.stem[:2])]
        if wanted.suffix == ".ipynb" and wanted.is_file():
            named = [wanted.resolve()]
        if not named:
            there = ", ".join(path.stem for path in every)
            raise ValueError(f"no notebook {name!r}; there are: {there or 'none'}")
        paths += named
    if not paths:
        raise ValueError(f"no notebooks in {HERE.name}/")
    return paths


def refresh(path: Path) -> bool:
    """Run the notebook and replace the file in one step; False if nothing changed."""
    before = path.read_bytes()
    notebook = read(before)
    execute(notebook, path.parent)
    tidy(notebook)
    for number, cell in enumerate(code_cells(notebook), 1):
        if fault := fault_of(cell):
            raise NotebookError(f"code cell {number} ({first_line(cell)}) {fault}")
    after = (nbformat.writes(notebook).rstrip("\n") + "\n").encode()
    if after == before or without_durations(notebook) == without_durations(
        read(before)
    ):
        return False
    partial = path.with_suffix(".partial")
    partial.write_bytes(after)
    partial.replace(path)
    return True


def read(content: bytes) -> NotebookNode:
    """The notebook; a cell without an id gets one that is the same each time."""
    try:
        raw = json.loads(content)
        taken = {cell["id"] for cell in raw["cells"] if "id" in cell}
        fresh = (
            name for i in itertools.count() if (name := f"cell-{i:02d}") not in taken
        )
        for cell in raw["cells"]:
            if "id" not in cell:
                cell["id"] = next(fresh)
        raw["nbformat_minor"] = max(5, raw["nbformat_minor"])
        notebook = nbformat.reads(json.dumps(raw), as_version=4)
        nbformat.validate(notebook)
    except (ValueError, KeyError, TypeError, nbformat.ValidationError) as error:
        raise NotebookError(f"not a notebook of format 4: {error}") from error
    return notebook


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run every cell in a fresh kernel, which works in ``folder``."""
    reached: list[NotebookNode] = []
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_TIMEOUT,
        record_timing=False,
        coalesce_streams=True,
        on_cell_execute=lambda cell, cell_index: reached.append(cell),
    )
    try:
        # the kernel's own stderr holds its log; what cells write becomes an output
        client.execute(cwd=str(folder), stderr=subprocess.DEVNULL)
    except (
        CellControlSignal,
        CellExecutionError,
        DeadKernelError,
        RuntimeError,
    ) as error:
        if not reached:
            raise NotebookError(f"its kernel did not start: {error}") from error
        number = sum(cell.cell_type == "code" for cell in reached)
        print(error, file=sys.stderr)
        reason = f"ended with {type(error).__name__}"
        if isinstance(error, CellExecutionError):
            reason = f"raised {error.ename}: {error.evalue}".partition("\n")[0]
        raise NotebookError(
            f"code cell {number} ({first_line(reached[-1])}) {reason}"
        ) from error


def tidy(notebook: NotebookNode) -> None:
    """Take out what differs between machines and runs of one notebook."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {key: cell.metadata[key] for key in ("tags",) if cell.metadata.get(key)}
        )
    for cell in code_cells(notebook):
        for output in cell.outputs:
            # a widget ends with its kernel: its text says more than "model not found"
            data = output.get("data", {})
            data.pop(WIDGET, None)
            if "image/png" in data:
                data["image/png"] = with_palette(data["image/png"])


def with_palette(png: str) -> str:
    """The picture in 256 colours: a third of the bytes, and it looks the same."""
    palette = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(256).save(palette, "PNG", optimize=True)
    return base64.b64encode(palette.getvalue()).decode() + "\n"


def without_durations(notebook: NotebookNode) -> NotebookNode:
    """The notebook with blanks for durations and for what cells tagged timing show."""
    notebook = copy.deepcopy(notebook)
    for cell in code_cells(notebook):
        if "timing" in cell.metadata.get("tags", []):
            cell.outputs = [
                nbformat.from_dict({"output_type": o.output_type}) for o in cell.outputs
            ]
        for output in cell.outputs:
            if "text" in output:
                output.text = DURATION.sub(" ", output.text)
    return notebook


def fault_of(cell: NotebookNode) -> str:
    """Why the cell's outputs can't be stored; an empty string if they can."""
    if any(output.get("name") == "stderr" for output in cell.outputs):
        return "writes to stderr"
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if "raises-exception" in cell.metadata.get("tags", []) and not errors:
        return "is tagged raises-exception and raised none"
    if path := MACHINE_PATH.search(json.dumps(cell.outputs)):
        return f"shows a path of this machine: {path[0][:80]}"
    return ""


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def first_line(cell: NotebookNode) -> str:
    return cell.source.strip().partition("\n")[0][:60]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
