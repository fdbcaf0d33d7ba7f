"""Mutants of the core of bsconv.pytorch, made and tried by mutmut in a copy of the project.

The quick tests of the core have to kill them: those that `make quick` runs after a change there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from mutmut.stats import status_by_exit_code

from helpers.paths import ROOT

LIBRARY = "bsconv/pytorch"
CORE = [str(path.relative_to(ROOT)) for path in sorted((ROOT / LIBRARY).glob("*.py"))]
CORE += [f"{LIBRARY}/_tools"]
QUICK = ["--slow", "none"]
# torch.compile, and warnings that name the caller's line, cannot see through what mutmut puts
# around each function; nor do public names stay the same
LEFT_OUT = ["-k", "not (compil or point_at_the_caller or every_public_name)"]
ROOMS = ("core", "spectra", "profiler", "inference", "pretrained", "models")
KILLED = ("killed", "timeout")  # what never ends has been noticed too

CONFIGURATION = f"""
[tool.mutmut]
source_paths = {json.dumps(CORE)}
also_copy = ["bsconv", "benchmarks", "docs", "README.md"]
pytest_add_cli_args = ["-p", "no:cacheprovider", "-p", "nightly.mutants.fresh_caches"]
pytest_add_cli_args_test_selection = {json.dumps(["tests/core", *QUICK, *LEFT_OUT])}
"""


def copy_project(folder: Path) -> None:
    """The files that git knows or would take, as they are here, set up for mutmut."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, names):
        source, copy = ROOT / os.fsdecode(name), folder / os.fsdecode(name)
        if source.is_file():  # it may be gone without git being told
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(CONFIGURATION)


def all_names(folder: Path) -> list[str]:
    """The mutants that mutmut makes of the copy in ``folder``."""
    return _run(folder, "nightly.mutants.names", *CORE).split()


def try_out(folder: Path, names: Sequence[str], processes: int) -> dict[str, str]:
    """What comes of each of ``names``: "killed", "survived", "timeout", "no tests", ..."""
    _run(folder, "mutmut", "run", "--max-children", str(processes), *names)
    codes: dict[str, int | None] = {}
    for file in (folder / "mutants" / LIBRARY).rglob("*.meta"):
        codes |= json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"]
    return {name: status_by_exit_code[codes[name]] for name in names}


def changes(folder: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """What each mutant has otherwise than the code: the lines of a diff that begin with - or +."""
    found = {}
    for name in names:
        lines = _run(folder, "mutmut", "show", name).splitlines()
        marked = [line for line in lines if line[:1] in ("-", "+")]
        found[name] = [line for line in marked if line[:3] not in ("---", "+++")]
    return found


def coverage(folder: Path) -> dict[str, float]:
    """Shares of the lines and of the branches of the library that its quick tests reach."""
    tests = [*(f"tests/{room}" for room in ROOMS), *QUICK]
    sources = ["--branch", "--source", LIBRARY]
    _run(folder, "coverage", "run", *sources, "-m", "pytest", "-q", *tests)
    _run(folder, "coverage", "json", "-q", "-o", "coverage.json")
    totals = json.loads((folder / "coverage.json").read_text(encoding="utf-8"))["totals"]
    return {
        "lines": totals["covered_lines"] / totals["num_statements"],
        "branches": totals["covered_branches"] / totals["num_branches"],
    }


def _run(folder: Path, module: str, *arguments: str) -> str:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",  # mutmut forks
        "BSCONV_OFFLINE": "1",
        "BSCONV_TEST_PATIENCE": "100",  # mutants and coverage cost time
        "PYTHONPATH": "tests",
    }
    command = [sys.executable, "-m", module, *arguments]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if ended.returncode:
        said = ended.stdout[-2000:] + ended.stderr[-2000:]
        raise RuntimeError(f"{module} {arguments[:1]} ended in {ended.returncode}: {said}")
    return ended.stdout
