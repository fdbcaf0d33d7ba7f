"""Mutants of bsconv/pytorch, made and tried by mutmut in a copy of the project, and coverage."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mutmut.stats import status_by_exit_code

ROOT = Path(__file__).resolve().parents[3]
MUTATED = "bsconv/pytorch"

# all that is about bsconv/pytorch and nothing else
TESTS = tuple(
    f"tests/test_{name}.py"
    for name in (
        *("decomposition", "execution", "inference", "initialization", "layer_fit", "models"),
        *("modification", "modules", "networks", "output_fit", "pretrained"),
        *("pretrained_weights", "profiler"),
        *("regularization", "replacers", "spectra", "stopwatch", "tables", "full_float32"),
    )
)
# of these, what takes seconds and sees what smaller models show too, and what trains; torch.compile
# and warnings that name the caller's line cannot see through what mutmut puts around each function
LEFT_OUT = (
    "point_at_the_caller",
    *("packed", "they_reach", "on_the_command_line"),
    *("torchvision", "by_name", "deep", "deepest", "shorter_numbers", "more_networks"),
    "through_the_compiler",
    *("compilation", "compiled_for", "compiled_batch", "compiled_exported"),
    *("new_one_trains_on", "each_way_is_better", "(unchanged and outputs)"),
)
SELECTION = [*TESTS, "-k", f"not ({' or '.join(LEFT_OUT)})"]

CONFIGURATION = f"""
[tool.mutmut]
source_paths = ["{MUTATED}/"]
also_copy = ["bsconv", "benchmarks", "reliability"]
pytest_add_cli_args = ["-p", "no:cacheprovider", "-p", "nightly.mutants.fresh_caches"]
pytest_add_cli_args_test_selection = {json.dumps(SELECTION)}
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
    return _run(folder, "nightly.mutants.names").split()  # there: it reads its settings there


def try_out(folder: Path, processes: int, names: Sequence[str] = ()) -> None:
    """Run the tests on each of ``names``; by default, on those that were not tried before."""
    _run(folder, "mutmut", "run", "--max-children", str(processes), *names)


def outcomes(folder: Path) -> dict[str, str]:
    """What came of each mutant so far: "killed", "survived", "timeout", "no tests", ..."""
    codes: dict[str, int | None] = {}
    for file in sorted((folder / "mutants" / MUTATED).rglob("*.meta")):
        codes |= json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"]
    return {name: status_by_exit_code[code] for name, code in codes.items() if code is not None}


def changes(folder: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """What each mutant has otherwise than the code: the lines of a diff that begin with - or +."""
    found = {}
    for name in names:
        lines = _run(folder, "mutmut", "show", name).splitlines()
        marked = [line for line in lines if line[:1] in ("-", "+")]
        found[name] = [line for line in marked if line[:3] not in ("---", "+++")]
    return found


def print_changes(changed: Mapping[str, list[str]]) -> None:
    """Print each mutant and its lines."""
    for name, lines in changed.items():
        print("", f"# {name}", *lines, sep="\n", flush=True)


def coverage(folder: Path) -> dict[str, float]:
    """Shares of the lines and of the branches of MUTATED that the tests reach."""
    sources = ["--branch", "--source", MUTATED]
    _run(folder, "coverage", "run", *sources, "-m", "pytest", "-q", *SELECTION)
    _run(folder, "coverage", "json", "-q", "-o", "coverage.json")
    totals = json.loads((folder / "coverage.json").read_text(encoding="utf-8"))["totals"]
    return {
        "lines": totals["covered_lines"] / totals["num_statements"],
        "branches": totals["covered_branches"] / totals["num_branches"],
    }


def _run(folder: Path, module: str, *arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BSCONV_OFFLINE": "1"}  # mutmut forks
    command = [sys.executable, "-m", module, *arguments]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if ended.returncode:
        said = ended.stdout[-2000:] + ended.stderr[-2000:]
        raise RuntimeError(f"{module} {arguments[0] if arguments else ''} failed: {said}")
    return ended.stdout
