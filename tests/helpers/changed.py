"""The tests that a change asks for, one path a line: those of its rooms and of who imports these.

usage: PYTHONPATH=tests python -m helpers.changed [COMMIT]

The change is what the working tree has that COMMIT lacks: main, or HEAD where that is main. All
import the core, so a change of the core asks for its own tests alone; `make test` runs the others.
"""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from helpers.imports import PACKAGE, imports, module_name
from helpers.paths import ROOT

TESTS = ROOT / "tests"
ROOMS = {  # whose tests are those of parts without a folder of their own
    "engines": "inference", "_forms": "pretrained", "basics": "core",
    **dict.fromkeys(("config", "rules", "optimizers", "normalization"), "training"),
}  # fmt: skip
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
    chosen, parts = {ALWAYS}, set()
    for file in map(Path, files):
        if file.parts[0] == "bsconv":
            parts |= {part(file), room(file)}
        elif file.parts[0] == "tests" and file.name.startswith("test_"):
            chosen |= {str(file)} if (ROOT / file).exists() else set()
        elif file.name == "conftest.py" and file.parent != Path("tests"):
            chosen.add(str(file.parent))
        elif file.parts[0] != "tests":
            chosen.add("tests/project")
            parts |= {"results"} & {file.parts[0]}
    asking = (parts - ROOMS.keys()) | importers(parts - {"core", "basics", "commands"})
    chosen |= {f"tests/{name}" for name in asking}
    return sorted(path for path in chosen if str(Path(path).parent) not in chosen)


def part(file: Path) -> str:
    """The room, or what counts as one, that a file of the package is in."""
    names = file.with_suffix("").parts[1:]
    named = [name for name in names if name in ROOMS or (TESTS / name).is_dir()]
    return named[0] if named else "core" if "pytorch" in names else "commands"


def room(file: Path) -> str:
    """The folder of tests for a file of the package."""
    return ROOMS.get(part(file), part(file))


def importers(parts: set[str]) -> set[str]:
    """The rooms that import one of these."""
    where = {module_name(path): part(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py")}
    return {
        ROOMS.get(where[module], where[module])
        for module, names in imports().items()
        if module != "bsconv.pytorch"  # it only lists names
        if any(where.get(name) in parts for name in names)
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
