"""Oldest and newest versions, in environments of their own; in these, the wheel alone."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image

from helpers.paths import ROOT
from helpers.reliability import Section

# what these tests import, of the package's extras and of the tools
PACKAGES = (
    "torch torchvision pytorchcv timm numpy pillow safetensors tqdm matplotlib onnx onnxscript"
    " onnxruntime pytest pytest-xdist hypothesis pyyaml"
)
TESTS = ("core", "models", "profiler", "data", "files", "training")
ADMITTED = dict(re.findall(r'"([\w-]+)>=([\w.]+)', (ROOT / "pyproject.toml").read_text("utf-8")))
COMMANDS = """train --model cifar_resnet20 --dataset photos --epochs 1 --out run
project cifar_resnet20 --weights run --dataset photos --budget 50% --out small.safetensors
predict small.safetensors photos/red/0.png"""


@pytest.mark.nightly
def test_the_library_works_with_the_oldest_versions(tmp_path: Path, section: Section) -> None:
    oldest = {name: version for name, version in ADMITTED.items() if name in PACKAGES.split()}
    assert len(oldest) == len(PACKAGES.split())
    python = str(tmp_path / "bin" / "python")
    output_of(sys.executable, "-m", "venv", str(tmp_path))
    pins = [f"{package}=={version}" for package, version in oldest.items()]
    output_of(python, "-m", "pip", "install", "--quiet", *pins)
    tests = [f"tests/{name}" for name in TESTS]
    quick = ["--slow", "none", "-p", "no:cacheprovider"]
    printed = output_of(python, "-m", "pytest", "-q", *quick, *tests)
    (count,) = re.findall(r"(\d+) passed", printed)
    newest = {package: metadata.version(package).split("+")[0] for package in oldest}
    rows = [f"| {package} | {oldest[package]} | {newest[package]} |" for package in oldest]
    section(
        "Oldest and newest versions",
        f"{int(count):,} tests passed with the oldest, on Python {sys.version.split()[0]}.\n\n"
        "| package | oldest | newest |\n|---|---|---|\n" + "\n".join(rows),
    )


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("version", "torch"), [("3.10", f"torch=={ADMITTED['torch']}"), ("3.13", "torch")]
)
def test_the_wheel_runs_what_the_readme_shows(version: str, torch: str, tmp_path: Path) -> None:
    pyenv = Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python")
    given = next(filter(None, map(shutil.which, map(str, (*pyenv, f"python{version}")))), None)
    if given is None:
        pytest.skip(f"Python {version} is not installed")
    source = tmp_path / "source"  # elsewhere, nothing of older builds gets into the wheel
    shutil.copytree(ROOT / "bsconv", source / "bsconv")
    for name in ("pyproject.toml", "LICENSE", "docs/description.md"):
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    output_of(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", ".", cwd=source)
    (wheel,) = source.glob("*.whl")
    assert wheel.stat().st_size < 3e6
    output_of(given, "-m", "venv", str(tmp_path / "env"))
    python, program = (str(tmp_path / "env" / "bin" / name) for name in ("python", "bsconv"))
    packages = torch, f"bsconv[lab] @ file://{wheel}"
    output_of(python, "-m", "pip", "install", "--quiet", *packages, cwd=tmp_path)
    readme = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for code in blocks:
        output_of(python, "-W", "error", "-c", code, cwd=tmp_path)
    for name in ("red", "blue"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (32, 32), name).save(tmp_path / "photos" / name / f"{number}.png")
    for line in COMMANDS.splitlines():
        printed = output_of(program, *line.split(), cwd=tmp_path)
    assert "photos/red/0.png" in printed


def output_of(*command: str, cwd: Path = ROOT) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BSCONV_OFFLINE": "1"}
    environment |= {} if cwd == ROOT else {"PYTHONPATH": ""}  # the wheel, not the checkout
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, f"{ended.stdout[-3000:]}{ended.stderr[-3000:]}"
    return ended.stdout
