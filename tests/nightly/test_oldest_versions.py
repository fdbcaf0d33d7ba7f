"""The oldest versions that are admitted, in an environment of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from helpers.paths import ROOT
from helpers.reliability import Section

# what these tests import, of the package's extras and of the tools
PACKAGES = (
    "torch torchvision pytorchcv timm numpy pillow safetensors tqdm matplotlib onnx onnxscript"
    " onnxruntime pytest pytest-xdist hypothesis pyyaml"
)
TESTS = ("core", "models", "profiler", "data", "files", "training")


@pytest.mark.nightly
def test_the_library_works_with_the_oldest_versions(tmp_path: Path, section: Section) -> None:
    admitted = re.findall(r'"([\w-]+)>=([\w.]+)', (ROOT / "pyproject.toml").read_text("utf-8"))
    oldest = {name: version for name, version in dict(admitted).items() if name in PACKAGES.split()}
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


def output_of(*command: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BSCONV_OFFLINE": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, f"{ended.stdout[-3000:]}{ended.stderr[-3000:]}"
    return ended.stdout
