"""Whether the quick tests notice wrong code: coverage of the library, and mutants of its core."""

import datetime
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from helpers.paths import ROOT
from helpers.reliability import Section

pytestmark = pytest.mark.nightly

TITLE = "Tests notice wrong code"
SAMPLE = int(os.environ.get("BSCONV_MUTANTS") or 400)
LEAST_SCORE, LEAST_LINES, LEAST_BRANCHES = 0.85, 98, 95  # percent of the latter two
LIBRARY = "bsconv/pytorch"
CORE = [str(path.relative_to(ROOT)) for path in sorted((ROOT / LIBRARY).glob("*.py"))]
CORE += [str(path.relative_to(ROOT)) for path in sorted((ROOT / LIBRARY / "_tools").glob("*.py"))]
QUICK = ["--slow", "none"]
# what compiles, scripts, names the caller's line or lists all functions sees what mutmut puts there
LEFT_OUT = "not (compil or transforms and script or nothing_to_replace or no_size or public_name)"
ROOMS = ("core", "spectra", "profiler", "inference", "pretrained", "models")
CONFIGURATION = f"""
[tool.mutmut]
source_paths = {json.dumps(CORE)}
also_copy = ["bsconv", "benchmarks", "docs", "README.md"]
pytest_add_cli_args = ["-p", "no:cacheprovider", "-p", "helpers.fresh_caches"]
pytest_add_cli_args_test_selection = {json.dumps(["tests/core", *QUICK, "-k", LEFT_OUT])}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, set up for mutmut."""
    folder = tmp_path_factory.mktemp("copies") / "project"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.npz", "site", "course")
    shutil.copytree(ROOT, folder, ignore=left_out)
    with (folder / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write(CONFIGURATION)
    return folder


def run(folder: Path, module: str, *arguments: str) -> str:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",  # mutmut forks
        "BSCONV_OFFLINE": "1",
        "BSCONV_TEST_PATIENCE": "100",  # mutants and coverage cost time
        "PYTHONPATH": "tests",
    }
    command = [sys.executable, "-m", module, *arguments]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    return ended.stdout


def test_quick_tests_reach_the_library(project: Path, section: Section) -> None:
    tests = [*(f"tests/{room}" for room in ROOMS), *QUICK]
    run(project, "coverage", "run", "--branch", "--source", LIBRARY, "-m", "pytest", "-q", *tests)
    run(project, "coverage", "json", "-q", "-o", "coverage.json")
    found = json.loads((project / "coverage.json").read_text(encoding="utf-8"))["totals"]
    lines = 100 * found["covered_lines"] / found["num_statements"]
    branches = 100 * found["covered_branches"] / found["num_branches"]
    assert lines >= LEAST_LINES
    assert branches >= LEAST_BRANCHES
    reached = f"{lines:.1f} % of its lines and {branches:.1f} % of its branches"
    section(TITLE, f"- The quick tests of `bsconv.pytorch` reach {reached}.")


def test_quick_tests_kill_mutants_of_the_core(project, section, monkeypatch) -> None:
    date = datetime.date.today().isoformat()
    monkeypatch.chdir(project)
    names = mutants()
    drawn = random.Random(date).sample(names, SAMPLE)
    outcomes = outcomes_of(project, drawn)
    survivors = [name for name in drawn if outcomes[name] not in ("killed", "timeout")]
    score = 1 - len(survivors) / SAMPLE
    changes = [change(run(project, "mutmut", "show", name)) for name in survivors]
    rows = [f"| {readable(name)} | {c} |" for name, c in zip(survivors, changes, strict=True)]
    assert score >= LEAST_SCORE, "\n".join(rows)
    counts = ", ".join(f"{n} {outcome}" for outcome, n in Counter(outcomes.values()).most_common())
    section(
        TITLE,
        f"- Of {len(names):,} mutants of the core, {SAMPLE} were drawn by the date and tried:"
        f" {score:.1%} were killed ({counts}), and {LEAST_SCORE:.0%} had to be.\n\n"
        "| survived in | the code | the mutant |\n|---|---|---|\n" + "\n".join(rows),
    )


def mutants() -> list[str]:
    """The names of all that mutmut makes of the copy, which is the working directory."""
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.format_utils import get_mutant_name

    return [
        get_mutant_name(path, name)
        for path in map(Path, CORE)
        for name in mutate_file_contents(str(path), path.read_text("utf-8")).mutant_names
    ]


def outcomes_of(folder: Path, names: list[str]) -> dict[str, str]:
    """What comes of each: "killed", "survived", "timeout", "no tests", ..."""
    from mutmut.stats import status_by_exit_code

    run(folder, "mutmut", "run", "--max-children", "2", *names)
    codes: dict[str, int | None] = {}
    for file in (folder / "mutants" / LIBRARY).rglob("*.meta"):
        codes |= json.loads(file.read_text(encoding="utf-8"))["exit_code_by_key"]
    return {name: status_by_exit_code[codes[name]] for name in names}


def change(diff: str) -> str:
    """The lines with - and those with + as two cells of a table."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    sides = [[line[1:].strip() for line in lines if line[:1] == sign] for sign in "-+"]
    return " | ".join(f"`{' '.join(side)}`".replace("|", "\\|") for side in sides)


def readable(name: str) -> str:
    """``modules.BSConvU.forward`` of ``bsconv.pytorch.modules.xǁBSConvUǁforward__mutmut_1``."""
    name = name.removeprefix("bsconv.pytorch.").partition("__mutmut")[0]
    return re.sub(r"\.x[_ǁ]", ".", name).replace("ǁ", ".")
