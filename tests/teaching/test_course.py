"""What students get of the notebooks, and what their teacher gets."""

from pathlib import Path

import course
import pytest

from bsconv.teaching.exercises import CHECKS
from helpers.notebooks import NOTEBOOKS, cells_of


@pytest.fixture
def written(tmp_path: Path) -> Path:
    course.write(tmp_path)
    return tmp_path


def test_students_get_every_notebook_without_solutions(written: Path) -> None:
    copies = sorted((written / "course").iterdir())
    assert [path.name for path in copies] == [path.name for path in NOTEBOOKS]
    for copy, path in zip(copies, NOTEBOOKS, strict=True):
        cells, original = cells_of(copy), cells_of(path)
        solved = [cell for cell in original if "exercise-solution" in cell["tags"]]
        assert len(cells) == len(original) - len(solved) < len(original)
        assert "exercise-stub" in {tag for cell in cells for tag in cell["tags"]}
        assert not any("Solution" in cell["source"] for cell in cells)


def test_the_teacher_gets_each_exercise_with_its_solution(written: Path) -> None:
    pages = (written / "course-solutions.md").read_text().split("\n## Exercise ")[1:]
    assert [page.partition(":")[0] for page in pages] == list(CHECKS)
    assert all("```python\n" in page and "<details>" not in page for page in pages)


def test_only_answers_to_a_question_are_folded() -> None:
    cells = [
        {"cell_type": kind, "source": text, "metadata": {}, "outputs": ["something"]}
        for kind, text in [
            ("code", "set-up"), ("markdown", "**Predict first.** How many?"), ("code", "first"),
            ("code", "second"), ("markdown", "**What you should see.** Two."), ("code", "third"),
        ]
    ]  # fmt: skip
    folded = [cell["source"] for cell in course.student_copy(cells) if cell["metadata"]]
    assert folded == ["first", "second"]


def test_slides_show_the_figures_of_the_notebooks_and_no_code(written: Path) -> None:
    for number, names in enumerate(course.LECTURES, 1):
        page = (written / f"course-lecture-{number}.html").read_text(encoding="utf-8")
        cells = [c for path in NOTEBOOKS if path.name[:2] in names for c in cells_of(path)]
        figures = [
            output["data"]["image/png"] for c in cells for output in course.figure_outputs(c)
        ]
        assert page.count('alt="a figure"') == len(figures) > 5
        assert all("".join(figure).strip() in page for figure in figures)
        assert page.count("<section><section>") > len(figures)  # a slide each, and headings
        assert "highlight-ipython3" not in page.partition("<body>")[2]
        assert "Exercise" not in page.partition("<body>")[2]
