"""Running notebooks: what nbval refuses with our conftest, and what run_all stores."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from helpers.notebooks import FOLDER
from helpers.notebooks import run_all as runner
from helpers.paths import ROOT

(STRICT,) = re.findall(r"^STRICT := PYTHONWARNINGS=(\S+)$", (ROOT / "Makefile").read_text(), re.M)


def cell(source: str, *outputs: NotebookNode, tags: Sequence[str] = ()) -> NotebookNode:
    """A code cell that was run."""
    metadata = {"tags": list(tags)} if tags else {}
    return new_code_cell(source, execution_count=1, outputs=list(outputs), metadata=metadata)


def printed(text: str, name: str = "stdout") -> NotebookNode:
    return new_output("stream", text=text, name=name)


def figure(colour: str) -> NotebookNode:
    png = io.BytesIO()
    Image.new("RGB", (1, 1), colour).save(png, "PNG")
    content = runner.with_palette(base64.b64encode(png.getvalue()).decode())
    return new_output("display_data", {"image/png": content, "text/plain": "<Figure>"})


def write(path: Path, *cells: NotebookNode) -> Path:
    for number, one in enumerate(cells):
        one.id = f"cell-{number}"
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


def python(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    given = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    given |= {"PYTHONWARNINGS": STRICT, "BSCONV_OFFLINE": "1"} | variables
    return subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True)


VERDICTS = {
    "stderr 0": "FAILED",
    "stderr 1": "FAILED",  # also where the output is ignored
    "stderr 2": "FAILED",  # a warning is an exception
    "stderr 3": "SKIPPED",
    "raising 0": "PASSED",  # as announced
    "raising 1": "FAILED",  # announced, but nothing came
    "raising 2": "FAILED",
    "raising 3": "SKIPPED",
    "lacking 0": "PASSED",
    "lacking 1": "PASSED",  # no cifar10: run, not compared
    "lacking 2": "FAILED",  # but errors count
}


@pytest.mark.slow
def test_nbval_judges_each_cell_and_says_why(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "conftest.py", tmp_path)
    write(
        tmp_path / "stderr.ipynb",
        cell("import sys\nprint('!', file=sys.stderr)"),
        cell("print('!', file=sys.stderr)", tags=["nbval-ignore-output"]),
        cell("import warnings\nwarnings.warn('old name', DeprecationWarning)"),
        cell("print('after')", printed("after\n")),
    )
    write(
        tmp_path / "raising.ipynb",
        cell("1 / 0", tags=["raises-exception", "nbval-ignore-output"]),
        cell("1 / 1", tags=["raises-exception", "nbval-ignore-output"]),
        cell("1 / 0"),
        cell("print('after')", printed("after\n")),
    )
    write(
        tmp_path / "lacking.ipynb",
        cell("find_dataset = lambda name='cifar10': print('synthetic')"),
        cell("find_dataset()", printed("real\n")),
        cell("1 / 0"),
    )
    nbval = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", FOLDER / "sanitize.cfg"]
    how = ["-v", "--color=no", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml"]
    run = python("-m", "pytest", *how, *nbval, tmp_path, BSCONV_DATA=str(tmp_path))
    assert run.returncode == 1, run.stdout + run.stderr
    found = re.findall(r"(\w+)\.ipynb::Cell (\d+) (PASSED|FAILED|SKIPPED|ERROR)", run.stdout)
    assert {f"{name} {number}": verdict for name, number, verdict in found} == VERDICTS, run.stdout
    for line in (
        "SYNTHETIC DATA: no cifar10.npz in",
        "Cell wrote to stderr",
        "old name",
        "Cell is tagged raises-exception and raised none",
    ):
        assert line in run.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebooks folder of its own: the first can be run, the others fail."""
    folder = tmp_path_factory.mktemp("project") / "notebooks"
    folder.mkdir()
    shutil.copy(FOLDER / "run_all.py", folder)
    good = write(
        folder / "01_good.ipynb",
        new_code_cell("for i in range(3):\n    print(i)", metadata={"collapsed": True}),
        new_code_cell("import matplotlib.pyplot as plt\n_ = plt.plot([1, 2], [3, 4])\nplt.show()"),
        new_code_cell(
            "import json\nfrom bsconv.teaching.notebook import start\n_ = start()\njson.loads('{')",
            metadata={"tags": ["raises-exception"]},
        ),
        new_code_cell("import ipywidgets\nipywidgets.IntSlider(3)"),
    )
    raw = json.loads(good.read_text())
    del raw["cells"][1]["id"]
    raw["metadata"]["widgets"] = {"state": {}}
    good.write_text(json.dumps(raw))
    write(folder / "02_raising.ipynb", new_code_cell("x = 1"), new_code_cell("# why\n1 / 0"))
    write(folder / "03_untidy.ipynb", new_code_cell("import sys\nprint('!', file=sys.stderr)"))
    return folder


def run_all(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return python(folder / "run_all.py", *names, MPLBACKEND="")


@pytest.mark.slow
def test_run_all_stores_the_same_bytes_each_time(folder: Path) -> None:
    path = folder / "01_good.ipynb"
    first = run_all(folder, "01")
    assert first.returncode == 0, first.stderr
    assert re.fullmatch(r"01_good: \d+\.\d s, stored\n", first.stdout)
    stored = path.read_bytes()
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    printing, plotting, raising, widget = notebook.cells
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3, 4]
    assert [cell.id for cell in notebook.cells] == ["cell-0", "cell-00", "cell-2", "cell-3"]
    assert (printing.metadata, plotting.metadata) == ({}, {})
    assert raising.metadata == {"tags": ["raises-exception"]}
    assert printing.outputs == [printed("0\n1\n2\n")]
    assert "image/png" in plotting.outputs[0].data
    assert widget.outputs[0].data == {"text/plain": "IntSlider(value=3)"}  # no model, no view
    cell, message = raising.outputs[0].traceback  # nothing of the json library
    assert "json.loads" in cell
    assert "JSONDecodeError" in message

    assert re.fullmatch(r"01_good: \d+\.\d s, unchanged\n", run_all(folder, "01_good").stdout)
    assert path.read_bytes() == stored


@pytest.mark.parametrize(
    ("tags", "before", "after", "stays"),
    [
        ([], [printed("dense    9.8 ms, U 12 ms")], [printed("dense   10.1 ms, U 9 ms")], True),
        ([], [printed("loss 2.3, 7 s")], [printed("loss 2.3, 11 s")], True),
        ([], [printed("loss 2.3, 7 s")], [printed("loss 2.2, 7 s")], False),
        ([], [printed("torch 2.14.1")], [printed("torch 2.15.0")], False),
        ([], [printed("at 7 s")], [printed("at 7")], False),
        ([], [figure("red")], [figure("blue")], False),
        (["timing"], [figure("red")], [figure("blue")], True),
        (["timing"], [printed("7 GB/s")], [printed("8")], True),
        (["timing"], [], [figure("blue")], False),  # cleared
        (["timing"], [figure("red")], [printed("7 s")], False),
    ],
)
def test_run_all_changes_measured_times_alone(tags, before, after, stays, tmp_path, monkeypatch):
    def execute(notebook: NotebookNode, _: Path) -> None:
        notebook.cells[0].outputs = after

    path = write(tmp_path / "01_timed.ipynb", cell("work()", *before, tags=tags))
    notebook = nbformat.read(path, as_version=4)
    runner.tidy(notebook)
    nbformat.write(notebook, path)
    monkeypatch.setattr(runner, "execute", execute)
    assert runner.refresh(path) is not stays
    assert nbformat.read(path, as_version=4).cells[0].outputs == (before if stays else after)


@pytest.mark.slow
def test_run_all_leaves_failing_notebooks_as_they_were(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    run = run_all(folder, "02", "03")
    assert run.returncode == 1
    raising, untidy = run.stdout.splitlines()
    assert "left as it was: code cell 2 (# why) raised ZeroDivisionError" in raising
    assert "left as it was: code cell 1 (import sys) writes to stderr" in untidy
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (cell("", printed("!", "stderr")), "writes to stderr"),
        (cell("", printed("saved in /tmp/x.pt")), "path of this machine: /tmp/x.pt"),
        (cell("", tags=["raises-exception"]), "is tagged raises-exception and raised none"),
    ],
)
def test_run_all_refuses_what_may_not_be_stored(refused: NotebookNode, reason: str) -> None:
    assert reason in runner.fault_of(refused)


def test_run_all_takes_names_of_notebooks(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(runner, "HERE", folder)
    good, raising, untidy = sorted(folder.glob("*.ipynb"))
    assert runner.chosen([]) == [good, raising, untidy]
    assert runner.chosen(["03", str(good), "02_raising.ipynb"]) == [untidy, good, raising]
    with pytest.raises(ValueError, match="no notebook '07'; there are: 01_good, 02_raising"):
        runner.chosen(["07"])


@pytest.mark.parametrize("content", [b"", b'{"cells": 3}', b"[]", b'{"cells": []}'])
def test_run_all_refuses_files_that_are_not_notebooks(content: bytes) -> None:
    with pytest.raises(runner.NotebookError, match="not a notebook of format 4"):
        runner.read(content)
