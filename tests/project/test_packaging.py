"""The package as a whole: one set of metadata, imports that point one way, a set-up to trust."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
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
    requirements = PROJECT["dependencies"] + EXTRAS["notebooks"] + EXTRAS["dev"]
    assert pip == {"pip": [*requirements, "--editable ."]}
    assert environment["channels"] == ["conda-forge"]
    assert [entry for entry in conda if not entry.startswith("python=")] == ["make", "pip"]


def test_the_core_needs_torch_alone() -> None:
    (requirement,) = PROJECT["dependencies"]
    assert requirement.startswith("torch>=")
    assert set(EXTRAS) == {"notebooks", "export", "docs", "dev"}


@pytest.mark.parametrize("extra", ["export", "docs"])
def test_the_tests_have_what_is_tested(extra: str) -> None:
    assert set(EXTRAS[extra]) <= set(EXTRAS["dev"])


def test_the_lock_pins_what_is_asked_for() -> None:
    about, *lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert re.fullmatch(r"# What CI installs: Python 3\.\d+ on Linux, written by .*\.", about)
    # names and versions alone: where they come from is up to pip
    locked = dict(re.fullmatch(r"([a-z0-9-]+)==([\w.]+)", line).groups() for line in lines)
    assert list(locked) == sorted(locked)
    assert len(locked) == len(lines)
    for text in PROJECT["dependencies"] + EXTRAS["notebooks"] + EXTRAS["dev"]:
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


def test_the_paper_is_cited() -> None:
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    assert paper["title"].startswith("Rethinking Depthwise Separable Convolutions")
    assert [author["family-names"] for author in paper["authors"]] == ["Haase", "Amthor"]


def test_there_is_one_licence() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert re.match(r"\s*Apache License\s+Version 2\.0, January 2004", text)
    assert "Copyright 2026 the bsconv authors" in text
    assert "END OF TERMS AND CONDITIONS" in text
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["license"] == citation["license"] == "Apache-2.0"


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


def imported(source: str, module: str, is_package: bool = False) -> set[str]:
    """What ``source``, the file of ``module``, imports anywhere, as absolute dotted names.

    ``from .a import b`` gives ``package.a`` and ``package.a.b``, as b may be a module.
    """
    package = module if is_package else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


IMPORTS = {
    module_name(path): imported(path.read_text(), module_name(path), path.name == "__init__.py")
    for path in sorted(PACKAGE.rglob("*.py"))
}

# The modules of bsconv.pytorch, and which public ones each may import. Private files beside them
# are helpers: any may import one, and a helper that is not listed imports no module at all.
ARROWS = {
    "regularization": set(),
    "decomposition": set(),
    "plan": set(),
    "modules": {"regularization", "decomposition", "initialization"},
    "_replacement": {"modules", "plan", "initialization"},
    "replacers": {"modules", "plan", "regularization", "decomposition"},
    "initialization": set(),
    "models": {"replacers", "modules", "initialization", "regularization", "decomposition"},
    "spectra": {"decomposition"},
    "profiler": set(),
    "_batch_norm": set(),
    "_execution": set(),
    "_slices": set(),
    "_shares": set(),
    "_output_fit": {"decomposition"},
    "_layer_fit": {"modules", "decomposition"},
    "_head_fit": set(),
    "_sensitivity": set(),
    "_projection_report": set(),
    "pretrained": {"replacers", "modules", "decomposition"},
    "_folding": {"modules", "regularization"},
    "_forms": {"modules", "decomposition", "initialization"},
    "_form_choice": set(),
    "_inference_report": set(),
    "_optimized": set(),
    "inference": {"modules"},
}
CORE = "bsconv.pytorch"


def core_part(name: str) -> str | None:
    """``"models"`` for ``bsconv.pytorch.models._names``; None for what is no module of the core."""
    if not name.startswith(CORE + "."):
        return None
    part = name.removeprefix(CORE + ".").split(".")[0]
    return part if f"{CORE}.{part}" in IMPORTS else None


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import torch.nn as nn", {"torch.nn"}),
        ("from .modules import BSConvU", {"a.b.modules", "a.b.modules.BSConvU"}),
        ("from . import modules", {"a.b", "a.b.modules"}),
        ("from ..experiments import data", {"a.experiments", "a.experiments.data"}),
        ("def f():\n    import numpy", {"numpy"}),
    ],
)
def test_imports_are_found(source: str, names: set[str]) -> None:
    assert imported(source, "a.b.c") == imported(source, "a.b", is_package=True) == names


@pytest.mark.parametrize("module", [name for name in IMPORTS if core_part(name)])
def test_arrows_of_the_core(module: str) -> None:
    part = core_part(module)
    targets = {core_part(name) for name in IMPORTS[module]} - {None, part}
    if part.startswith("_") and part not in ARROWS:
        assert targets == set(), f"{module} is a helper"
    else:
        assert part in ARROWS, f"{module} is new: give it its place in the arrows"
        public = {target for target in targets if not target.startswith("_")}
        assert public <= ARROWS[part]
    assert CORE not in IMPORTS[module], f"{module} imports the public names it is a part of"


@pytest.mark.parametrize("module", IMPORTS)
def test_nothing_points_back(module: str) -> None:
    layers = [CORE, "bsconv.experiments", "bsconv.commands", "bsconv.__main__"]
    height = next((i for i, layer in enumerate(layers) if f"{module}.".startswith(f"{layer}.")), -1)
    for above in layers[height + 1 :]:
        assert not [name for name in IMPORTS[module] if f"{name}.".startswith(f"{above}.")]


@pytest.mark.parametrize("module", [name for name in IMPORTS if f"{name}.".startswith(f"{CORE}.")])
def test_the_core_imports_torch_alone(module: str) -> None:
    top = {name.split(".")[0] for name in IMPORTS[module]}
    # typing_extensions comes with torch, and only type checkers see it
    allowed = {"torch", "bsconv", "typing_extensions"}
    assert top - set(sys.stdlib_module_names) <= allowed


def test_one_package_imports_matplotlib() -> None:
    drawing = [
        module
        for module, names in IMPORTS.items()
        if any(name.split(".")[0] == "matplotlib" for name in names)
    ]
    assert drawing
    assert all(f"{module}.".startswith("bsconv.experiments.plotting.") for module in drawing)


IMPORT_COST = """
import json, sys, time
import torch
before = set(sys.modules)
begin = time.process_time()
import bsconv.pytorch
seconds = time.process_time() - begin
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps([seconds, sorted(new - set(sys.stdlib_module_names))]))
"""


def test_importing_the_core_costs_little_more_than_torch() -> None:
    command = [sys.executable, "-c", IMPORT_COST]
    # with bytecode kept, as where it is installed: the first run may have to compile
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    costs = []
    while min(costs, default=1) >= 0.1 and len(costs) < 5:  # other processes only make it slower
        run = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        seconds, new = json.loads(run.stdout)
        assert set(new) <= {"bsconv", "torch"}
        costs.append(seconds)
    assert min(costs) < 0.1, f"import bsconv.pytorch adds {costs} s to import torch"


# the fixture that runs the published package


def test_published_runs_that_package_and_no_other(published: Callable[..., Any]) -> None:
    script = """
import importlib.util
import bsconv.pytorch
names = ["bsconv.experiments", "bsconv.pytorch.decomposition", "bsconv.pytorch.mobilenet"]
found = {name: importlib.util.find_spec(name) is not None for name in names}
torch.save({"found": found, "given": arguments}, "result.pt")
"""
    result = published(script, {"a": torch.ones(2)}, [1, "b"])
    assert list(result["found"].values()) == [False, False, True]
    given, (one, letter) = result["given"]
    torch.testing.assert_close(given["a"], torch.ones(2))
    assert (one, letter) == (1, "b")


def test_published_reports_a_failing_script(published: Callable[..., Any]) -> None:
    with pytest.raises(pytest.fail.Exception, match="NameError: name 'nothing' is not defined"):
        published("nothing")


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


def test_set_up_once(setup: Setup) -> None:
    first = setup.make("env")
    assert first.returncode == 0, first.stderr
    assert [line.split()[:2] for line in first.stdout.splitlines()] == [
        ["env:", "making"],
        ["env:", "installing"],
        ["env:", "fetching"],
        ["env:", ".venv"],
    ]
    assert (setup.folder / ".peer").is_dir()
    second = setup.make("env")
    assert (second.returncode, setup.installs()) == (0, 1)
    assert second.stdout == "env: .venv is ready\n"


def test_an_interrupted_set_up_is_done_again(setup: Setup) -> None:
    (setup.folder / "broken").touch()
    assert setup.make("env").returncode != 0
    assert setup.make("env").returncode != 0
    (setup.folder / "broken").unlink()
    assert setup.make("env").returncode == 0
    assert setup.installs() == 3


def test_other_requirements_are_installed(setup: Setup) -> None:
    setup.make("env")
    with (setup.folder / "pyproject.toml").open("a") as file:
        file.write("# more\n")
    (setup.folder / "broken").touch()
    assert setup.make("env").returncode != 0
    shutil.copy(ROOT / "pyproject.toml", setup.folder)  # half of it is another's by now
    (setup.folder / "broken").unlink()
    assert setup.make("env").returncode == 0
    assert setup.installs() == 3


def test_a_moved_folder_is_set_up_again(setup: Setup) -> None:
    setup.make("env")
    setup.folder = setup.folder.rename(setup.folder.with_name("moved"))
    assert setup.make("env").returncode == 0
    assert setup.installs() == 2


def test_without_the_published_package_the_rest_works(setup: Setup) -> None:
    (setup.folder / "offline").touch()
    run = setup.make("env")
    assert run.returncode == 0
    assert "the tests that compare with it are skipped" in run.stdout
    assert not (setup.folder / ".peer").exists()


def test_no_python_is_said_in_one_line(setup: Setup) -> None:
    run = setup.make("env", "PYTHON=no-python no-python3.10")
    assert run.returncode != 0
    said, *_ = run.stderr.splitlines()
    assert said.startswith("env: needs Python 3.10 or newer with its venv module")
    assert "no-python no-python3.10" in said


def test_help_is_what_make_does_by_itself(setup: Setup) -> None:
    listed = re.findall(r"^make (\S+) +\w", setup.make().stdout, re.MULTILINE)
    assert {"lab", "test", "notebooks", "docs", "data", "lint", "env", "help"} <= set(listed)
    assert setup.installs() == 0
