"""The tests that a change asks for, one path a line: those of its rooms and of who imports these.

usage: PYTHONPATH=tests python -m helpers.changed [COMMIT]

The change is what the working tree has that COMMIT lacks: main, or HEAD where that is main. All
import the core, so a change of the core asks for its own tests alone; `make test` runs the others.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from helpers.imports import PACKAGE, imports, module_name
from helpers.paths import ROOT

TESTS = ROOT / "tests"
ALWAYS = "tests/project/test_house.py"


def main(commit: str = "main") -> None:
    """Files that differ from where this branch left ``commit``, those unknown to git included."""
    (base,) = git("merge-base", commit, "HEAD") or ["HEAD"]
    unknown = git("ls-files", "--others", "--exclude-standard")
    print("\n".join(paths_for([*git("diff", "--name-only", base), *unknown])))


def git(*arguments: str) -> list[str]:
    ended = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return ended.stdout.splitlines()


def paths_for(files: Iterable[str]) -> list[str]:
    """Folders and files of tests."""
    chosen, rooms = {ALWAYS}, set()
    for file in map(Path, files):
        if file.parts[0] == "bsconv":
            rooms.add(room(file))
        elif file.parts[0] == "tests" and file.name.startswith("test_"):
            chosen |= {str(file)} if (ROOT / file).exists() else set()
        elif file.parts[0] != "tests":
            chosen.add("tests/project")
            rooms |= {"results"} & {file.parts[0]}
    chosen |= {f"tests/{name}" for name in rooms | importers(rooms - {"core", "commands"})}
    return sorted(path for path in chosen if str(Path(path).parent) not in chosen)


def room(file: Path) -> str:
    """The folder of tests for a file of the package."""
    parts = ["inference" if part == "engines" else part for part in file.with_suffix("").parts]
    named = [part for part in parts if (TESTS / part).is_dir()]
    return named[0] if named else "core" if "pytorch" in file.parts else "commands"


def importers(rooms: set[str]) -> set[str]:
    """The rooms that import one of these."""
    where = {module_name(path): room(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py")}
    return {
        where[module]
        for module, names in imports().items()
        if module != "bsconv.pytorch"  # it only lists names
        if any(where.get(name) in rooms for name in names)
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
