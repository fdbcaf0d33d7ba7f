"""The oldest versions that are admitted, in an environment of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest

from helpers.paths import ROOT
from helpers.reliability import Section

pytestmark = pytest.mark.nightly

# what these tests import, of the package's extras and of the tools
PACKAGES = (
    "torch",
    "torchvision",
    "pytorchcv",
    "numpy",
    "pillow",
    "safetensors",
    "tqdm",
    "matplotlib",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "timm",
    "pytest",
    "pytest-xdist",
    "hypothesis",
    "pyyaml",
)
TESTS = ("core", "models", "profiler", "data", "files", "training")


def floors() -> dict[str, str]:
    """The oldest version of each package that pyproject.toml admits."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = dict(re.findall(r'"([\w-]+)>=([\w.]+)', text))
    return {name: found[name] for name in PACKAGES}


def test_the_library_works_with_the_oldest_versions(tmp_path: Path, section: Section) -> None:
    oldest = floors()
    python = str(tmp_path / "bin" / "python")
    output_of(sys.executable, "-m", "venv", str(tmp_path))
    pins = [f"{package}=={version}" for package, version in oldest.items()]
    output_of(python, "-m", "pip", "install", "--quiet", *pins)
    tests = [f"tests/{name}" for name in TESTS]
    quick = ["--slow", "none", "-p", "no:cacheprovider"]
    printed = output_of(python, "-m", "pytest", "-q", *quick, *tests)
    counts = re.search(r"(\d+) passed", printed)
    assert counts is not None
    section("Oldest and newest versions", text(oldest, int(counts[1])))


def output_of(*command: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BSCONV_OFFLINE": "1"}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, f"{ended.stdout[-3000:]}{ended.stderr[-3000:]}"
    return ended.stdout


def text(oldest: Mapping[str, str], tests: int) -> str:
    """Both ends of what is admitted."""
    python = ".".join(map(str, sys.version_info[:2]))
    newest = {package: metadata.version(package).split("+")[0] for package in oldest}
    rows = [f"| {package} | {version} | {newest[package]} |" for package, version in oldest.items()]
    return "\n".join(
        [
            f"{tests:,} tests of the library, its data, files and training pass with the oldest"
            f" versions that `pyproject.toml` admits, on Python {python}; all tests pass with the"
            " newest, which `requirements.lock` pins.",
            "",
            "| package | oldest | newest |",
            "|---|---|---|",
            *rows,
        ]
    )
