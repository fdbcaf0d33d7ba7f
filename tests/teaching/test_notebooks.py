"""The notebooks keep to the standard, as far as it shows without running them."""

import base64
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbval.plugin import get_sanitize_patterns

from helpers.notebooks import FOLDER, NOTEBOOKS, cells_of, run_all

INDEX = "00_index"
PANELS = "(kernel explorer|rank slider|cost calculator|order toggle|model surgeon|training scrub)"
FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)


class Notebook:
    """A notebook as it is stored, and what the rules ask about it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_index = path.stem == INDEX
        self.metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
        self.cells = cells_of(path)
        self.code = [cell for cell in self.cells if cell["cell_type"] == "code"]
        self.prose = [cell for cell in self.cells if cell["cell_type"] == "markdown"]
        # a folded solution is read by who asks for it, and makes the lesson no longer
        self.words = sum(len(FOLDED.sub("", cell["source"]).split()) for cell in self.prose)
        code = [line for cell in self.code for line in cell["source"].split("\n")]
        self.lines = sum(bool(line.strip()) for line in code)
        self.images = [
            (kind, content)
            for cell in self.code
            for output in cell["outputs"]
            for kind, content in output.get("data", {}).items()
            if kind.startswith("image/") and output["output_type"] == "display_data"
        ]


def execution_faults(notebook: Notebook) -> Iterator[str]:
    counts = [cell["execution_count"] for cell in notebook.code]
    if counts != list(range(1, len(counts) + 1)):
        yield f"not run from top to bottom: execution counts {counts}"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "its kernelspec is not python3"
    if "widgets" in notebook.metadata:
        yield "holds the state of widgets"


def output_faults(notebook: Notebook) -> Iterator[str]:
    for number, cell in enumerate(notebook.code, 1):
        where = f"code cell {number}"
        if any(output.get("name") == "stderr" for output in cell["outputs"]):
            yield f"{where} wrote to stderr"
        raised = any(output["output_type"] == "error" for output in cell["outputs"])
        if raised != ("raises-exception" in cell["tags"]):
            yield f"{where} needs the tag raises-exception if it raises, and only then"
        text = json.dumps([cell["source"], cell["outputs"]])
        if path := run_all.MACHINE_PATH.search(text):
            yield f"{where} shows a path of one machine: {path[0][:80]}"
        for output in cell["outputs"]:
            shown = output.get("data", {})
            if re.match(PANELS, "".join(shown.get("text/plain", ""))) and "image/png" not in shown:
                yield f"{where} shows a widget without a picture"
            if run_all.WIDGET in shown:
                yield f"{where} holds the view of a widget that is gone"
        if "SYNTHETIC DATA:" in text:
            yield f"{where} was run without CIFAR: unpack it, then make notebooks"


def size_faults(notebook: Notebook) -> Iterator[str]:
    if (size := notebook.path.stat().st_size) > 600_000:
        yield f"is {size / 1000:.0f} KB large, at most 600"
    for number, cell in enumerate(notebook.code, 1):
        if (lines := len(cell["source"].splitlines())) > 35:
            yield f"code cell {number} has {lines} lines, at most 35"
    for what, count, least, most in (
        ("cells", len(notebook.cells), 25, 50),
        ("words", notebook.words, 1000, 2500),
        ("lines of code", notebook.lines, 120, 350),
    ):
        if not (least <= count <= most or notebook.is_index):
            yield f"has {count} {what}, should be {least} to {most}"


def figure_faults(notebook: Notebook) -> Iterator[str]:
    if len(notebook.images) > 6:
        yield f"has {len(notebook.images)} figures, at most 6"
    for kind, content in notebook.images:
        if kind != "image/png":
            yield f"holds an image of type {kind}, only PNG is allowed"
            continue
        width, height = struct.unpack(">II", base64.b64decode("".join(content))[16:24])
        if width > 1440 or height > 740:  # 7 x 3.5 inches at 200 dpi, and matplotlib's margin
            yield f"has a figure of {width} x {height} pixels, at most 1440 x 740"
    if any("attachments" in cell for cell in notebook.cells):
        yield "holds an attached image: draw it in a cell"


def check_faults(notebook: Notebook) -> Iterator[str]:
    quiet = [
        cell["source"]
        for cell in notebook.code
        if {"nbval-ignore-output", "nbval-skip"} & set(cell["tags"])
        or re.search(r"#\s*NBVAL_(IGNORE|SKIP)", cell["source"])
    ]
    if len(quiet) > len(notebook.code) / 4:
        yield f"{len(quiet)} of {len(notebook.code)} code cells ignore their output, at most 25 %"
    for source in quiet:
        if not re.search(r"^\s*assert\b", source, re.MULTILINE):
            line = source.partition("\n")[0]
            yield f"a cell that ignores its output asserts nothing: {line}"
    on_purpose = any("raises-exception" in cell["tags"] for cell in notebook.code)
    if not (on_purpose or notebook.is_index):
        yield "no cell fails on purpose (tag raises-exception)"


def link_faults(notebook: Notebook) -> Iterator[str]:
    header = notebook.cells[0]
    if header["cell_type"] != "markdown" or not header["source"].startswith("# "):
        yield "does not begin with a title"
    for cell in notebook.prose:
        for target in re.findall(r"\]\(([^)\s]+)\)", cell["source"]):
            file = target.partition("#")[0]
            if file and "://" not in file and not (FOLDER / file).exists():
                yield f"links to {target}, which does not exist"
    here = NOTEBOOKS.index(notebook.path)
    for neighbour in NOTEBOOKS[max(0, here - 1) : here + 2]:
        if neighbour != notebook.path and f"]({neighbour.name})" not in header["source"]:
            yield f"its first cell does not link to its neighbour {neighbour.name}"


def study_time_faults(notebook: Notebook) -> Iterator[str]:
    """A minute for 100 words and for 10 lines of code, 8 for an exercise."""
    exercises = sum("exercise" in cell["tags"] for cell in notebook.prose)
    takes = notebook.words / 100 + notebook.lines / 10 + 8 * exercises
    said = re.search(r"\*\*Time:\*\* (\d+) minutes to study", notebook.cells[0]["source"])
    if not said or abs(int(said[1]) - takes) > 5:
        yield f"takes about {takes:.0f} minutes to study, its first cell says {said and said[1]}"


RULES = (
    execution_faults, output_faults, size_faults, figure_faults, check_faults, link_faults,
    study_time_faults,
)  # fmt: skip


def test_the_index_links_to_the_complete_course() -> None:
    assert [path.stem[:3] for path in NOTEBOOKS] == [f"{number:02}_" for number in range(10)]
    index = NOTEBOOKS[0].read_text()
    assert all(f"]({path.name})" in index for path in NOTEBOOKS[1:])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_the_standard(path: Path) -> None:
    notebook = Notebook(path)
    found = [fault for rule in RULES for fault in rule(notebook)]
    assert not found, "\n".join([path.name, *found])


# What nbval sees of two runs that differ in nothing but the machine.


def sanitised(text: str) -> str:
    for regex, replacement in get_sanitize_patterns((FOLDER / "sanitize.cfg").read_text()):
        text = re.sub(regex, replacement, text)
    return text


def test_nbval_takes_every_pattern() -> None:
    content = (FOLDER / "sanitize.cfg").read_text()
    assert len(get_sanitize_patterns(content)) == content.count("\nregex:") > 0


@pytest.mark.parametrize(
    ("stored", "now", "same"),
    [
        ("torch 2.15.0+cu132, bsconv 1.0.0.dev0", "torch 2.11.1+cpu, bsconv 1.0.0", True),
        ("took 3.2 s for 10 steps", "took 14 s for 10 steps", True),
        ("250 us, 3ms", "1.5 ms, 2s", True),
        ("1,234 images/s", "99.5 images/s", True),
        ("<object at 0x7f0012345678>", "<object at 0x7fffffffffff>", True),
        ("accuracy 81.2 %", "accuracy 79.9 %", False),
        ("270896 parameters", "270895 parameters", False),
        ("relative error 1.2e-07", "relative error 1.3e-02", False),
        ("resnet18 small", "resnet34 small", False),
        ("BSConvS(64, 128, p=0.25)", "BSConvS(64, 128, p=0.50)", False),
    ],
)
def test_versions_times_and_addresses_alone_are_not_compared(stored, now, same) -> None:
    assert (sanitised(stored) == sanitised(now)) is same
