"""Write the notebooks as a teacher hands them out: ``make course``.

The folder course/ is for students: copies without solutions, in which the outputs of what they are
asked to predict are folded. course-solutions.md is for the teacher, and so are the slides of three
lectures, course-lecture-1.html to -3.html.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbconvert import SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[1]
FOLDED = {"collapsed": True, "jupyter": {"outputs_hidden": True}}
QUESTION = "**Predict first.**"
TITLE = re.compile(r"^### (Exercise [\d.]+: .*)$", re.MULTILINE)
FOLD = re.compile(r"</?details>|<summary>.*?</summary>")

LECTURES = (("00", "01", "02"), ("04", "03"), ("07", "08"))  # docs/teaching.md has the plan
SEEN = "**What you should see.**"

Cells = list[dict[str, Any]]


def student_copy(cells: Cells) -> Iterator[dict[str, Any]]:
    """The cells without solutions; after a question, outputs are folded up to the next text."""
    asked = False
    for cell in cells:
        tags = cell["metadata"].get("tags", [])
        if "exercise-solution" in tags:
            continue
        if cell["cell_type"] == "markdown":
            asked = QUESTION in "".join(cell["source"])
        elif asked and cell["outputs"]:
            cell = cell | {"metadata": cell["metadata"] | FOLDED}
        yield cell


def solutions(cells: Cells) -> Iterator[str]:
    """A section for each exercise: its task, and its solution."""
    for cell in cells:
        text, tags = "".join(cell["source"]), cell["metadata"].get("tags", [])
        if "exercise" in tags:
            title = TITLE.search(text)
            assert title, f"an exercise without a title: {text[:80]}"
            yield f"## {title[1]}\n\n{text[title.end() :].strip()}"
        elif "exercise-solution" in tags:
            yield FOLD.sub("", text).strip()


def slides(cells: Cells) -> Iterator[NotebookNode]:
    """A slide for each heading, question and figure; equations and explanations come to them."""
    heading, drawn = "", False
    for cell in cells:
        if figures := figure_outputs(cell):
            yield from (slide(f'<img alt="a figure" src="{address(png)}">') for png in figures)
        elif cell["cell_type"] == "markdown" and not is_exercise(cell):
            for paragraph in "".join(cell["source"]).split("\n\n"):
                if paragraph.startswith("#"):
                    heading = paragraph
                elif heading or QUESTION in paragraph:
                    yield slide(f"{heading}\n\n{paragraph}")
                    heading = ""
                elif paragraph.startswith("$$") or (drawn and paragraph.startswith(SEEN)):
                    yield slide(paragraph, "fragment")
        drawn = bool(figures) or (drawn and cell["cell_type"] == "code")


def slide(text: str, kind: str = "slide") -> NotebookNode:
    return new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}})


def is_exercise(cell: dict[str, Any]) -> bool:
    return any(tag.startswith("exercise") for tag in cell["metadata"].get("tags", []))


def address(output: dict[str, Any]) -> str:
    return "data:image/png;base64," + "".join(output["data"]["image/png"]).strip()


def figure_outputs(cell: dict[str, Any]) -> list[dict[str, Any]]:
    return [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]


def write_lectures(root: Path, notebooks: dict[str, Cells]) -> None:
    for number, names in enumerate(LECTURES, 1):
        lecture = new_notebook(cells=[one for name in names for one in slides(notebooks[name])])
        page, _ = SlidesExporter().from_notebook_node(lecture)
        (root / f"course-lecture-{number}.html").write_text(page, encoding="utf-8")


def write(root: Path) -> None:
    """All of it into ``root``; what stood there before is replaced."""
    folder = root / "course"
    folder.mkdir(parents=True, exist_ok=True)
    pages, notebooks = ["# Solutions of the exercises"], dict[str, Cells]()
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        pages += solutions(notebook["cells"])
        notebooks[path.name[:2]] = notebook["cells"]
        notebook["cells"] = list(student_copy(notebook["cells"]))
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        (folder / path.name).write_text(text, encoding="utf-8")
    (root / "course-solutions.md").write_text("\n\n".join(pages) + "\n", encoding="utf-8")
    write_lectures(root, notebooks)


if __name__ == "__main__":
    write(ROOT)
    print("course: course/ is for students, the solutions and three lectures for the teacher")
