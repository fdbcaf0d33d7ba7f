"""The package as a whole: one set of metadata, an import without surprises, a set-up to trust."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import bsconv

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from helpers.paths import ROOT

PACKAGE = ROOT / "bsconv"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PACKAGE_DATA = PYPROJECT["tool"]["setuptools"]["package-data"]["bsconv"]
EXTRAS = PROJECT["optional-dependencies"]


# metadata


def test_conda_installs_what_pyproject_asks_for() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    requirements = PROJECT["dependencies"] + EXTRAS["lab"] + EXTRAS["dev"]
    assert pip == {"pip": [*requirements, "--editable ."]}
    assert environment["channels"] == ["conda-forge"]
    assert [entry for entry in conda if not entry.startswith("python=")] == ["make", "pip"]


def test_the_core_needs_torch_alone() -> None:
    (requirement,) = PROJECT["dependencies"]
    assert requirement.startswith("torch>=")
    assert set(EXTRAS) == {"lab", "onnx", "openvino", "timm", "docs", "dev"}


@pytest.mark.parametrize("extra", ["onnx", "timm", "docs"])
def test_the_tests_have_what_is_tested(extra: str) -> None:
    assert set(EXTRAS[extra]) <= set(EXTRAS["dev"])


def test_the_lock_pins_what_is_asked_for() -> None:
    about, *lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert re.fullmatch(r"# What CI installs: Python 3\.\d+ on Linux, written by .*\.", about)
    # names and versions alone: where they come from is up to pip
    locked = dict(re.fullmatch(r"([a-z0-9-]+)==([\w.]+)", line).groups() for line in lines)
    assert list(locked) == sorted(locked)
    assert len(locked) == len(lines)
    for text in PROJECT["dependencies"] + EXTRAS["lab"] + EXTRAS["dev"]:
        requirement = Requirement(text)
        if requirement.name != "tomli":  # Python 3.10 only
            assert requirement.specifier.contains(locked[requirement.name.lower()]), text


def test_there_is_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == bsconv.__version__
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "bsconv.__version__"}
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == bsconv.__version__


def test_there_is_one_licence_and_the_paper_is_cited() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert re.match(r"\s*Apache License\s+Version 2\.0, January 2004", text)
    assert "Copyright 2026 the bsconv authors" in text
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["license"] == citation["license"] == "Apache-2.0"
    paper = citation["preferred-citation"]
    assert paper["title"].startswith("Rethinking Depthwise Separable Convolutions")
    assert [author["family-names"] for author in paper["authors"]] == ["Haase", "Amthor"]


def test_the_package_is_typed_and_brings_its_weights_and_tables() -> None:
    data = {file for pattern in PACKAGE_DATA for file in PACKAGE.glob(pattern)}
    assert PACKAGE / "py.typed" in data
    kinds = (".safetensors", ".json", ".csv")
    files = {path for path in PACKAGE.rglob("*") if path.suffix in kinds}
    assert {path.suffix for path in files} == set(kinds)
    assert files <= data


def test_commits_are_checked_by_the_tools_that_are_pinned_here() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    entries = {hook["id"]: hook["entry"] for hook in repos[0]["hooks"]}
    for tool in ("ruff check", "ruff format", "mypy"):
        assert entries[tool.replace(" ", "-")].startswith(f".venv/bin/python -m {tool}")
    for tool in ("ruff", "mypy"):
        assert any(entry.startswith(f"{tool}==") for entry in EXTRAS["dev"])


@pytest.mark.slow
def test_no_tracked_file_names_a_folder_of_one_machine() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout: " + listing.stderr.strip())
    found = []
    for name in listing.stdout.split("\0"):
        path = ROOT / name
        if not path.is_file():  # deleted, not committed yet
            continue
        text = path.read_bytes().decode(errors="replace")
        found += [f"{name}: {match[0]}" for match in re.finditer(r"/(?:work|root|home)/\S*", text)]
    assert found == []


# imports

NEWLY_IMPORTED = """
import json, sys
import torch
before = set(sys.modules)
import bsconv.pytorch
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.slow
def test_importing_the_library_adds_its_own_modules_to_those_of_torch() -> None:
    run = subprocess.run(
        [sys.executable, "-c", NEWLY_IMPORTED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    others = [name for name in json.loads(run.stdout) if not name.startswith("bsconv")]
    assert {name.partition(".")[0] for name in others} - sys.stdlib_module_names <= {"torch"}
    assert len(others) < 10, others


# the Makefile's set-up, with a stand-in for Python that only writes down what it is asked

STAND_IN = """#!/bin/sh
echo "$@" >>calls
case "$*" in
*"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
*--editable*) [ ! -e broken ] ;;
*--target*) [ ! -e offline ] && mkdir -p .venv/peer ;;
esac
"""


class Setup:
    """A folder with the Makefile and the stand-in for Python."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        shutil.copy(ROOT / "Makefile", folder)
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / "python").write_text(STAND_IN)
        (folder / "python").chmod(0o755)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            key: value
            for key, value in os.environ.items()
            if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON")
        }
        command = ["make", "PYTHON=./python", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def installs(self) -> int:
        calls = self.folder / "calls"
        return calls.read_text().count("--editable") if calls.exists() else 0


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    return Setup(tmp_path / "project")


@pytest.mark.slow
def test_set_up_once(setup: Setup) -> None:
    first = setup.make("env")
    assert first.returncode == 0, first.stderr
    assert [line.split()[:2] for line in first.stdout.splitlines()] == [
        ["env:", "making"],
        ["env:", "installing"],
        ["env:", ".venv"],
    ]
    assert not (setup.folder / ".peer").exists()
    second = setup.make("env")
    assert (second.returncode, setup.installs()) == (0, 1)
    assert second.stdout == "env: .venv is ready\n"


@pytest.mark.slow
def test_an_interrupted_set_up_is_done_again(setup: Setup) -> None:
    """Also where what was there before stood for other requirements."""
    setup.make("env")
    with (setup.folder / "pyproject.toml").open("a") as file:
        file.write("# more\n")
    (setup.folder / "broken").touch()
    assert setup.make("env").returncode != 0
    shutil.copy(ROOT / "pyproject.toml", setup.folder)  # half of it is another's by now
    (setup.folder / "broken").unlink()
    assert setup.make("env").returncode == 0
    assert setup.installs() == 3


@pytest.mark.slow
def test_a_moved_folder_is_set_up_again(setup: Setup) -> None:
    setup.make("env")
    setup.folder = setup.folder.rename(setup.folder.with_name("moved"))
    assert setup.make("env").returncode == 0
    assert setup.installs() == 2


@pytest.mark.slow
def test_the_published_package_is_fetched_on_demand(setup: Setup) -> None:
    (setup.folder / "offline").touch()
    run = setup.make("peer")
    assert run.returncode == 0
    assert "what compares with it is skipped" in run.stdout
    assert not (setup.folder / ".peer").exists()
    (setup.folder / "offline").unlink()
    assert setup.make("peer").returncode == 0
    assert (setup.folder / ".peer").is_dir()


@pytest.mark.slow
def test_no_python_is_said_in_one_line(setup: Setup) -> None:
    run = setup.make("env", "PYTHON=no-python no-python3.10")
    assert run.returncode != 0
    said, *_ = run.stderr.splitlines()
    assert said.startswith("env: needs Python 3.10 or newer with its venv module")
    assert "no-python no-python3.10" in said


@pytest.mark.slow
def test_help_is_what_make_does_by_itself(setup: Setup) -> None:
    listed = re.findall(r"^make (\S+) +\w", setup.make().stdout, re.MULTILINE)
    known = "lab quick test check nightly notebooks docs data lint env help"
    assert set(known.split()) <= set(listed)
    assert setup.installs() == 0


def test_the_description_of_the_package_stands_alone() -> None:
    text = (ROOT / PROJECT["readme"]).read_text()
    assert re.findall(r"\]\((?!https://)", text) == []
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    assert all(block in readme for block in blocks)
    extras = set(re.findall(r"bsconv\[(\w+)\]", text))
    assert extras == set(EXTRAS) - {"docs", "dev"}
