"""The house: rooms that never import one another, on floors, small enough to be known.

CONTRIBUTING.md says what is meant; here it is held.
"""

import ast
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from helpers.imports import PACKAGE, imports

IMPORTS = imports()
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
CORE = "bsconv.pytorch"
# What is larger than it should be: lower the number with every change, never raise it.
LARGE_ROOMS: dict[str, int] = {}
CORE_LINES = 2000
PACKAGE_LINES = 16_850
SHARED = [f"{CORE}.{name}" for name in ("_tools", "_layer_plans", "_forms")]
ROOMS = [f"{CORE}.{path.parent.name}" for path in (PACKAGE / "pytorch").glob("[!_]*/__init__.py")]

# Each part may import what is on floors below it, nothing of its own floor or above.
FLOORS = [
    ["bsconv"],  # with basics
    [f"{CORE}._tools", "bsconv.engines"],
    [f"{CORE}.{name}" for name in ("regularization", "decomposition", "plan")],
    [f"{CORE}.initialization", f"{CORE}._layer_plans"],
    [f"{CORE}.modules"],
    [f"{CORE}.replacers", f"{CORE}._forms"],
    ROOMS,
    [CORE],
    ["bsconv.experiments.rules"],
    ["bsconv.experiments.normalization", "bsconv.experiments.own_code"],
    [f"bsconv.experiments.{name}" for name in ("config", "model_sources", "data", "plotting")],
    ["bsconv.experiments.files", "bsconv.experiments.optimizers"],
    ["bsconv.experiments.training", "bsconv.experiments.export"],
    ["bsconv.experiments.results"],
    ["bsconv.experiments.inference_benchmark"],
    ["bsconv.experiments"],
    ["bsconv.commands", "bsconv.teaching"],
    ["bsconv.__main__"],
]
HEIGHTS = {part: height for height, parts in enumerate(FLOORS) for part in parts}


def part_of(module: str) -> str:
    """The part of FLOORS that a module belongs to; nothing for other packages."""
    while module and module not in HEIGHTS:
        module = module.rpartition(".")[0]
    return module


ACROSS = [  # who imports what of another part
    (module, name)
    for module, names in IMPORTS.items()
    for name in names
    if part_of(name) not in ("", part_of(module))
]


# imports


def test_every_part_imports_from_floors_below_it_alone() -> None:
    wrong = [(m, name) for m, name in ACROSS if HEIGHTS[part_of(name)] >= HEIGHTS[part_of(m)]]
    assert wrong == []


def test_each_room_of_the_library_and_each_public_file_has_its_floor() -> None:
    assert [module for module in IMPORTS if part_of(module) == CORE != module] == []


def test_only_the_door_of_a_room_is_used() -> None:
    """Private files are imported by their own room, but for what all rooms share."""
    used = [(module, name) for module, name in ACROSS if part_of(name) not in SHARED]
    assert [(module, name) for module, name in used if re.search(r"\._(?!_)", name)] == []


def test_no_module_imports_itself_in_a_circle() -> None:
    inside = {module: names & IMPORTS.keys() - {module} for module, names in IMPORTS.items()}
    TopologicalSorter(inside).prepare()  # CycleError names the circle


@pytest.mark.parametrize(
    ("part", "allowed"),
    [
        (f"{CORE}._tools", {"torch", "bsconv"}),
        (CORE, {"torch", "bsconv", "typing_extensions"}),  # the last for type checkers only
    ],
)
def test_the_library_imports_torch_alone(part: str, allowed: set[str]) -> None:
    inside = [name for name in IMPORTS if f"{name}.".startswith(f"{part}.")]
    top = {
        name.split(".")[0] for module in inside for name in IMPORTS[module] if part_of(name) != part
    }
    assert top - sys.stdlib_module_names <= allowed


def test_one_package_imports_matplotlib() -> None:
    drawing = [m for m in IMPORTS if any(n.split(".")[0] == "matplotlib" for n in IMPORTS[m])]
    assert {part_of(module) for module in drawing} == {"bsconv.experiments.plotting"}


# sizes


def lines(*folders_and_files: Path) -> int:
    return sum(
        len(text.splitlines())
        for path, text in SOURCES.items()
        if any(path.is_relative_to(place) for place in folders_and_files)
    )


def test_files_rooms_and_the_core_are_small() -> None:
    library = PACKAGE / "pytorch"
    assert [str(path) for path in SOURCES if lines(path) >= 300] == []
    assert len([path for path in library.iterdir() if path.name != "__pycache__"]) <= 15
    rooms = [
        path.parent for path in SOURCES if path.name == "__init__.py" and path.parent != PACKAGE
    ]
    large = [room.name for room in rooms if lines(room) > LARGE_ROOMS.get(room.name, 1500)]
    assert sorted(large) == ["experiments", "pytorch"]  # which hold rooms
    assert lines(*library.glob("*.py"), library / "_tools") < CORE_LINES
    assert lines(library / "_forms") <= 600
    assert lines(PACKAGE) <= PACKAGE_LINES


# plain code and plain English


def test_no_splat_packs_literals() -> None:
    """`*("a", "b")` only makes the formatter keep a line: items stand one on a line."""
    assert [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path, text in SOURCES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Starred) and isinstance(node.value, (ast.Tuple, ast.List))
    ] == []


def test_plain_words() -> None:
    pages = (*PACKAGE.parent.glob("*.md"), *PACKAGE.parent.glob("docs/*.md"))
    texts = SOURCES | {page: page.read_text(encoding="utf-8") for page in pages}
    assert [str(p) for p, text in texts.items() if re.search(r"(?i)\b(anew|beside)\b", text)] == []
