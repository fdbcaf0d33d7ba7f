"""Whether the notebooks' own check notices damage: each kind, done to each notebook."""

from __future__ import annotations

import ast
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TITLE = "Notebooks notice damage"

NOTEBOOKS = Path(__file__).resolve().parents[3] / "notebooks"
NOTICED, UNNOTICED = "noticed", "unnoticed"
AT_ONCE = 2  # most of them wait, for a kernel to start or an endless loop to be ended
CELL_SECONDS = 30  # an endless loop ends after that many

Cell = dict[str, Any]
Damage = Callable[[Cell], str | None]


def run() -> dict[str, Any]:
    """Damage every notebook in every way; RuntimeError names what went unnoticed."""
    outcomes: dict[str, dict[str, str]] = {}
    notebooks = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    if _outcome(notebooks[0].name, json.loads(notebooks[0].read_text(encoding="utf-8"))) == NOTICED:
        raise RuntimeError(f"{notebooks[0].name} fails as it is, so damage would prove nothing")

    def outcome(what: tuple[Path, str]) -> str:
        notebook, name = what
        damaged = _damaged(json.loads(notebook.read_text(encoding="utf-8")), DAMAGES[name])
        found = "no such cell" if damaged is None else _outcome(notebook.name, damaged)
        print(f"  {notebook.stem}: {name}: {found}", flush=True)
        return found

    tries = list(itertools.product(notebooks, DAMAGES))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for (notebook, name), found in zip(tries, pool.map(outcome, tries), strict=True):
            outcomes.setdefault(notebook.stem, {})[name] = found
    unnoticed = [
        f"{notebook}: {name}"
        for notebook, kinds in outcomes.items()
        for name, outcome in kinds.items()
        if outcome == UNNOTICED
    ]
    if unnoticed:
        raise RuntimeError(f"damage that no check noticed: {', '.join(unnoticed)}")
    return {"outcomes": outcomes}


def section(figures: Mapping[str, Any]) -> str:
    """A row for each notebook."""
    outcomes = figures["outcomes"]
    done = [kind for kinds in outcomes.values() for kind in kinds.values()]
    noticed = done.count(NOTICED)
    rows = [f"| notebook | {' | '.join(DAMAGES)} |", "|---" * (1 + len(DAMAGES)) + "|"]
    rows += [f"| {name} | {' | '.join(kinds.values())} |" for name, kinds in outcomes.items()]
    return (
        f"{noticed} of {len(done) - done.count('no such cell')} damages done to notebooks were"
        " noticed by the check that `make test` runs: outputs compared, warnings refused, time"
        " limited.\n\n" + "\n".join(rows)
    )


def _changed_print(cell: Cell) -> str | None:
    printed = any(output.get("name") == "stdout" for output in cell["outputs"])
    return cell["source"] + '\nprint("one more line")' if printed else None


def _flipped_assert(cell: Cell) -> str | None:
    source = cell["source"]
    with contextlib.suppress(SyntaxError):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Assert):
                claim = ast.get_source_segment(source, node.test)
                assert claim is not None
                return source.replace(claim, f"not ({claim})", 1)
    return None


def _new_warning(cell: Cell) -> str | None:
    return 'import warnings\nwarnings.warn("something changed")\n' + cell["source"]


def _figure_size(cell: Cell) -> str | None:
    if "plt.show()" not in cell["source"]:
        return None
    return cell["source"].replace("plt.show()", "plt.gcf().set_size_inches(3, 2)\nplt.show()")


def _endless_loop(cell: Cell) -> str | None:
    return cell["source"] + "\nwhile True:\n    pass"


DAMAGES: dict[str, Damage] = {
    "changed print": _changed_print,
    "flipped assert": _flipped_assert,
    "new warning": _new_warning,
    "changed figure size": _figure_size,
    "endless loop": _endless_loop,
}


def _damaged(notebook: dict[str, Any], damage: Damage) -> dict[str, Any] | None:
    """The notebook with its first fitting cell damaged, None if there is no such cell."""
    for cell in _code_cells(notebook):
        cell["source"] = "".join(cell["source"])
        source = damage(cell)
        if source is not None and "raises-exception" not in cell["metadata"].get("tags", []):
            cell["source"] = source
            return notebook
    return None


def _code_cells(notebook: dict[str, Any]) -> Iterator[Cell]:
    return (cell for cell in notebook["cells"] if cell["cell_type"] == "code")


def _outcome(name: str, notebook: dict[str, Any]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        for beside in ("conftest.py", "sanitize.cfg"):
            shutil.copy(NOTEBOOKS / beside, folder)
        path = Path(folder, name)
        path.write_text(json.dumps(notebook), encoding="utf-8")
        options = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout", str(CELL_SECONDS)]
        sanitize = ["--nbval-sanitize-with", str(NOTEBOOKS / "sanitize.cfg")]
        command = [sys.executable, "-m", "pytest", "-x", "-q", *options, *sanitize, str(path)]
        strict = "error,ignore::PendingDeprecationWarning:ipykernel.kernelbase"
        ended = subprocess.run(
            [*command, "-p", "no:cacheprovider", "--rootdir", folder],
            cwd=NOTEBOOKS.parent,
            env={**os.environ, "BSCONV_MODE": "fast", "PYTHONWARNINGS": strict},
            capture_output=True,
            text=True,
        )
    if ended.returncode not in (0, 1):  # 1: a cell failed
        raise RuntimeError(f"nbval could not run {name}: {ended.stdout[-500:]}{ended.stderr}")
    return NOTICED if ended.returncode == 1 else UNNOTICED
