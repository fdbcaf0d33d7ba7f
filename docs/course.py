"""Write the notebooks as a teacher hands them out: ``make course``.

The folder course/ is for students: copies without solutions, in which the outputs of what they are
asked to predict are folded. course-solutions.md is for the teacher.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDED = {"collapsed": True, "jupyter": {"outputs_hidden": True}}
QUESTION = "**Predict first.**"
TITLE = re.compile(r"^### (Exercise [\d.]+: .*)$", re.MULTILINE)
FOLD = re.compile(r"</?details>|<summary>.*?</summary>")

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


def write(root: Path) -> None:
    """Both into ``root``; what stood there before is replaced."""
    folder = root / "course"
    folder.mkdir(parents=True, exist_ok=True)
    pages = ["# Solutions of the exercises"]
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        pages += solutions(notebook["cells"])
        notebook["cells"] = list(student_copy(notebook["cells"]))
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        (folder / path.name).write_text(text, encoding="utf-8")
    (root / "course-solutions.md").write_text("\n\n".join(pages) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(ROOT)
    print("course: course/ is for students, course-solutions.md for the teacher")
