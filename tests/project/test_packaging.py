"""The package as a whole: one set of metadata, an import without surprises, a set-up to trust."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import bsconv
from bsconv.basics import errors

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
REQUIREMENTS = PROJECT["dependencies"] + EXTRAS["lab"] + EXTRAS["dev"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


# metadata


def test_conda_installs_what_pyproject_asks_for() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": [*REQUIREMENTS, "--editable ."]}
    assert environment["channels"] == ["conda-forge"]
    assert [entry for entry in conda if not entry.startswith("python=")] == ["make", "pip"]


def test_the_core_needs_torch_alone() -> None:
    (requirement,) = PROJECT["dependencies"]
    assert requirement.startswith("torch>=")
    assert set(EXTRAS) == {"lab", "onnx", "openvino", "timm", "docs", "dev"}
    assert {*EXTRAS["onnx"], *EXTRAS["timm"], *EXTRAS["docs"]} <= {*EXTRAS["dev"]}


def test_a_missing_package_is_installed_with_the_extra_that_has_it() -> None:
    for extra, packages in errors.EXTRAS.items():
        names = {Requirement(text).name for text in EXTRAS[extra]} - {"jupyterlab"}  # not imported
        assert {*packages.lower().replace("pil", "pillow").split()} == names


def test_the_lock_pins_what_is_asked_for() -> None:
    about, *lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert re.fullmatch(r"# What CI installs: Python 3\.\d+ on Linux, written by .*\.", about)
    # names and versions alone: where they come from is up to pip
    locked = dict(re.fullmatch(r"([a-z0-9-]+)==([\w.]+)", line).groups() for line in lines)
    assert list(locked) == sorted(locked)
    assert len(locked) == len(lines)
    for text in REQUIREMENTS:
        requirement = Requirement(text)
        if requirement.name != "tomli":  # Python 3.10 only
            assert requirement.specifier.contains(locked[requirement.name.lower()]), text


def test_there_is_one_version() -> None:
    assert CITATION["version"] == bsconv.__version__
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "bsconv.__version__"}
    newest, *_ = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest == bsconv.__version__


def test_there_is_one_licence_and_the_paper_is_cited() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert re.match(r"\s*Apache License\s+Version 2\.0, January 2004", text)
    assert "Copyright 2026 the bsconv authors" in text
    assert PROJECT["license"] == CITATION["license"] == "Apache-2.0"
    paper = CITATION["preferred-citation"]
    assert paper["title"].startswith("Rethinking Depthwise Separable Convolutions")
    assert [author["family-names"] for author in paper["authors"]] == ["Haase", "Amthor"]


def test_the_package_is_typed_and_brings_its_weights_and_tables() -> None:
    data = {file for pattern in PACKAGE_DATA for file in PACKAGE.glob(pattern)}
    assert PACKAGE / "py.typed" in data
    kinds = (".safetensors", ".json", ".csv")
    files = {path for path in PACKAGE.rglob("*") if path.suffix in kinds}
    assert {path.suffix for path in files} == set(kinds)
    assert files <= data
    assert sum(path.stat().st_size for path in {*files, *PACKAGE.rglob("*.py")}) < 3e6  # unpacked


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
    grep = ["git", "grep", "--text", "-nE", r"/(work|root|home)/\S*"]
    run = subprocess.run(grep, cwd=ROOT, capture_output=True, text=True, errors="replace")
    if "not a git repository" in run.stderr:
        pytest.skip("not a git checkout")
    assert (run.stdout, run.stderr) == ("", "")


# imports


@pytest.mark.slow
def test_importing_the_library_adds_its_own_modules_to_those_of_torch() -> None:
    code = "import sys, torch; before = {*sys.modules}; import bsconv.pytorch; "
    code += "print(*{*sys.modules} - before)"
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    others = [name for name in printed.split() if not name.startswith("bsconv")]
    assert {name.partition(".")[0] for name in others} - sys.stdlib_module_names <= {"torch"}
    assert len(others) < 12, others


FILE = """import bsconv.pytorch, torch
try: bsconv.pytorch.load_projected(torch.nn.ReLU(), "a.safetensors")
except ImportError as error: print(error)
"""


@pytest.mark.slow
def test_the_library_needs_torch_alone_and_says_what_the_rest_needs() -> None:
    """Examples of the API without other libraries, trained weights too; load_run comes last."""
    gone = ["numpy", "torchvision", "pytorchcv", "PIL", "matplotlib", "safetensors", "tqdm"]
    text = (ROOT / "docs" / "examples.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    own = [b for b in blocks if not re.search("torchvision|bsconv.experiments", b)]
    code = f"import sys\nsys.modules |= dict.fromkeys({gone})\n{FILE}" + "\n".join(own)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    needed = "ImportError: load_run needs the package numpy: pip install 'bsconv[lab]'"
    assert (len(own), run.stderr.splitlines()[-1]) == (9, needed)
    needed = "load_projected of a file needs the package safetensors: pip install 'bsconv[lab]'"
    assert run.stdout.splitlines()[0] == needed


# the Makefile's set-up, with a stand-in for Python that only writes down what it is asked

STAND_IN = """#!/bin/sh
echo "$@" >>calls
case "$*" in
*"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
*--editable*) [ ! -e broken ] ;;
*--target*) [ ! -e offline ] && mkdir -p .venv/peer ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the Makefile and the stand-in, which is the working directory."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "docs").mkdir()
    for name in ("Makefile", "pyproject.toml", "docs/jupyter_server_config.py"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "python").write_text(STAND_IN)
    (folder / "python").chmod(0o755)
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    return folder


def make(*targets: str, python: str = "./python") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", f"PYTHON={python}", *targets], capture_output=True, text=True)


def installs() -> int:
    return Path("calls").read_text().count("--editable")


@pytest.mark.slow
def test_set_up_once(project: Path) -> None:
    first = make("env")
    assert first.returncode == 0, first.stderr
    said = [" ".join(line.split()[:2]) for line in first.stdout.splitlines()]
    assert said == ["env: making", "env: installing", "env: .venv"]
    assert not Path(".peer").exists()
    second = make("env")
    assert (second.returncode, second.stdout) == (0, "env: .venv is ready\n")
    assert installs() == 1


@pytest.mark.slow
def test_an_interrupted_set_up_is_done_again(project: Path) -> None:
    """Also where what was there before stood for other requirements."""
    make("env")
    with open("pyproject.toml", "a") as file:
        file.write("# more\n")
    Path("broken").touch()
    assert make("env").returncode != 0
    shutil.copy(ROOT / "pyproject.toml", project)  # half of it is another's by now
    Path("broken").unlink()
    assert make("env").returncode == 0
    assert installs() == 3


@pytest.mark.slow
def test_a_moved_folder_is_set_up_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("env")
    monkeypatch.chdir(project.rename(project.with_name("moved")))
    assert make("env").returncode == 0
    assert installs() == 2


@pytest.mark.slow
def test_the_published_package_is_fetched_on_demand(project: Path) -> None:
    Path("offline").touch()
    run = make("peer")
    assert run.returncode == 0
    assert "what compares with it is skipped" in run.stdout
    assert not Path(".peer").exists()
    Path("offline").unlink()
    assert make("peer").returncode == 0
    assert Path(".peer").is_dir()


@pytest.mark.slow
def test_no_python_is_said_in_one_line(project: Path) -> None:
    run = make("env", python="no-python no-python3.10")
    assert run.returncode != 0
    said, *_ = run.stderr.splitlines()
    assert said.startswith("env: needs Python 3.10 or newer with its venv module")
    assert "no-python no-python3.10" in said


@pytest.mark.slow
def test_help_is_what_make_does_by_itself(project: Path) -> None:
    listed = re.findall(r"^make (\S+) +\w", make().stdout, re.MULTILINE)
    known = "lab quick test check nightly notebooks docs data lint env help"
    assert {*known.split()} <= {*listed}
    assert not Path(".venv").exists()


def test_the_description_of_the_package_stands_alone() -> None:
    text = (ROOT / PROJECT["readme"]).read_text()
    assert re.findall(r"\]\((?!https://)", text) == []
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    assert all(block in readme for block in blocks)
    assert set(re.findall(r"bsconv\[(\w+)\]", text)) == set(EXTRAS) - {"docs", "dev"}
