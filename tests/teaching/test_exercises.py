"""The exercises: their checks, and each one in its notebook, unsolved, solved and wrong."""

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from bsconv.teaching.exercises import CHECKS, check, function_hint, value_hint
from helpers.notebooks import NOTEBOOKS, cells_of
from helpers.wrong_answers import WRONG

PARTS = ["exercise", "exercise-stub", "exercise-solution"]
SETUPS: dict[Path, dict[str, Any]] = {}  # the names that a notebook has before its exercises


class Exercise(NamedTuple):
    """What a notebook holds of an exercise."""

    number: str
    path: Path
    task: str
    stub: str
    solution: str

    def output(self, answer: str = "") -> str:
        """What the check prints if the student writes ``answer`` below what the stub gives."""
        given, _, call = self.stub.rpartition("\n")
        return printed_by(f"{given}\n{answer}\n{call}", dict(SETUPS[self.path]))


def printed_by(code: str, names: dict[str, Any]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue()


def parts_of(cells: list[dict[str, Any]]) -> list[str]:
    """For each cell its part of an exercise, or an empty string."""
    return [next((part for part in PARTS if part in cell["tags"]), "") for cell in cells]


def exercises_of(path: Path) -> Iterator[Exercise]:
    cells = cells_of(path)
    texts = [cell["source"] for cell, part in zip(cells, parts_of(cells), strict=True) if part]
    for task, stub, solution in zip(*(iter(texts),) * 3, strict=True):
        number = re.search(r"^### Exercise ([\d.]+): ", task, re.MULTILINE)
        code = re.search(r"```python\n(.*?)```", solution, re.DOTALL)
        yield Exercise(number[1], path, task, stub, code[1])


EXERCISES = [exercise for path in NOTEBOOKS for exercise in exercises_of(path)]
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda each: each.number)


@each_exercise
def test_an_exercise_left_alone_solved_and_answered_wrongly(exercise, monkeypatch) -> None:
    monkeypatch.setenv("BSCONV_MODE", "fast")
    if exercise.path not in SETUPS:
        code = [cell for cell in cells_of(exercise.path) if cell["cell_type"] == "code"]
        needed = [c["source"] for c in code if c is code[0] or "exercise-needs" in c["tags"]]
        names: dict[str, Any] = {}
        printed_by("\n".join(needed), names)
        SETUPS[exercise.path] = names
    begin = f"Exercise {exercise.number}: "
    assert exercise.output() == f"{begin}not attempted yet\n"
    assert exercise.output(exercise.solution) == f"{begin}correct\n"
    assert WRONG[exercise.number]
    for answer, hint in WRONG[exercise.number].items():
        said = exercise.output(answer)
        assert said.startswith(f"{begin}not yet: "), answer
        assert hint in said, f"{answer}\nsays {said}"


def test_every_check_has_its_exercise_and_its_wrong_answers() -> None:
    assert [exercise.number for exercise in EXERCISES] == list(CHECKS) == list(WRONG)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_two_to_four_exercises_before_its_summary(path: Path) -> None:
    cells = cells_of(path)
    parts = parts_of(cells)
    count, first = parts.count("exercise"), parts.index("exercise")
    assert 2 <= count <= 4
    assert parts[first : first + 3 * count] == PARTS * count  # one after the other
    assert cells[first + 3 * count]["source"].startswith("## Summary")
    numbers = [exercise.number for exercise in EXERCISES if exercise.path == path]
    assert numbers == [f"{int(path.stem[:2])}.{i}" for i in range(1, count + 1)]


@each_exercise
def test_an_exercise_names_its_kind_and_its_stub_ends_in_its_check(exercise: Exercise) -> None:
    kind = re.search(r"^\*(By hand|In code|By experiment)\.\* ", exercise.task, re.MULTILINE)
    assert kind
    name = r"[a-z_]+" if kind[1] == "In code" else "answer"
    assert re.search(rf'\ncheck\("{re.escape(exercise.number)}", {name}\)$', exercise.stub)
    assert "..." in exercise.stub
    assert len(exercise.solution.splitlines()) <= 12


# The mechanism itself.


class Awkward:
    """What compares, shows and calls itself with an exception."""

    def _refuse(self, *_: Any) -> Any:
        raise RuntimeError("leave me alone")

    __eq__ = __repr__ = __call__ = __iter__ = _refuse
    __hash__ = None


ODD_ANSWERS = [
    float("nan"), float("inf"), -1, 0, True, 1j, "17", b"", {}, set(), [], (1, 2),
    torch.ones(3), nn.Linear(2, 2), Awkward(), Awkward, len, lambda *_: 1 / 0,
    lambda: 0, lambda *_: float("nan"), lambda *_: "x", lambda *_: torch.ones(0),
]  # fmt: skip


@pytest.mark.parametrize("number", CHECKS)
def test_no_answer_makes_a_check_raise(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    for answers, verdict in ((ODD_ANSWERS, "not yet: "), ((..., None, (1, ...)), "not attempted")):
        for answer in answers:
            check(number, answer)
            assert capsys.readouterr().out.startswith(f"Exercise {number}: {verdict}")


def test_an_unknown_exercise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one of 0\.1, .*, got '9\.9'"):
        check("9.9", 1)


def test_a_check_leaves_random_numbers_and_gradients_as_they_are() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with torch.no_grad():
        for number in CHECKS:
            check(number, lambda *_: torch.rand(5))
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.rand(3), expected)


NO_NUMBER = "the answer should be a number, got "


@pytest.mark.parametrize(
    ("answer", "expected", "hint"),
    [
        (0.751, 0.75, ""),
        (torch.tensor(0.75), 0.75, ""),
        (0.5, 0.75, "half"),
        (0.25, 0.75, "0.25 is not correct"),
        (float("nan"), 0.75, "nan is not correct"),
        (True, 0.75, f"{NO_NUMBER}True"),
        ("0.75", 0.75, f"{NO_NUMBER}'0.75'"),
        ("x" * 99, 0.75, f"{NO_NUMBER}'{'x' * 56}..."),
        (torch.ones(2), 0.75, f"{NO_NUMBER}a tensor of shape (2,)"),
        ((1, 2.5), (1, 2.5), ""),
        ([1, 2.5], (1, 2.5), ""),
        ((1, 2.5, 3), (1, 2.5), "the answer should be 2 values, got (1, 2.5, 3)"),
        ((2.5, 1), (1, 2.5), "(2.5, 1) is not correct"),
        (1, (1, 2), "the answer should be 2 values, got 1"),
        ("a", "a", ""),
        (1, "a", "the answer should be a name, got 1"),
        ({"a"}, {"a"}, ""),
        (["a"], {"a"}, "the answer should be a set of names, got ['a']"),
        (1, True, "1 is not correct"),
        (torch.tensor(True), True, ""),
        (torch.ones(2), torch.ones(2), ""),
        (torch.ones(2, dtype=torch.float64), torch.ones(2), ""),
        (torch.ones(2, 1), torch.ones(2), "a tensor of shape (2, 1) is not correct"),
        (torch.full((2,), float("nan")), torch.ones(2), "a tensor of shape (2,) is not correct"),
        (1.0, torch.ones(2), "1 is not correct"),
    ],
)
def test_hints_to_a_value(answer: Any, expected: Any, hint: str) -> None:
    assert value_hint(answer, expected, tolerance=0.01, hints=[(0.5, "half")]) == hint


CASES = [(2, 3), (4, 5)]


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (lambda w, h: w * h, ""),
        (lambda w, h: None, "for width=2, height=3, it returned None, which is not correct"),
        (lambda w, h: w + h, "for width=2, height=3, it returned 5; that is half the way round"),
        (lambda w, h: 6, "for width=4, height=5, it returned 6, which is not correct"),
        (lambda w, h: w[0], "for width=2, height=3, it raised TypeError: 'int' object is not subs"),
        (lambda w: w, "for width=2, height=3, it raised TypeError: "),
        (6, "the answer should be a function, got 6"),
    ],
)
def test_hints_to_a_function(function: Any, hint: str) -> None:
    hints = [(lambda width, height: width + height, "that is half the way round")]
    found = function_hint(function, lambda width, height: width * height, CASES, hints=hints)
    assert found.startswith(hint)
    assert bool(found) is bool(hint)


def test_a_function_that_changes_its_input_spoils_no_case() -> None:
    case = (torch.ones(2),)
    assert function_hint(lambda x: x.mul_(2), lambda x: 2 * x, [case, case]) == ""
    assert torch.equal(case[0], torch.ones(2))
