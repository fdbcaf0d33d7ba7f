"""The core tests with the oldest versions that are admitted, in an environment of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

TITLE = "Oldest and newest versions"
ROOT = Path(__file__).resolve().parents[3]

# what the core tests import, of the package's extras and of the tools
PACKAGES = (
    *("torch", "torchvision", "pytorchcv", "numpy", "pillow", "safetensors", "tqdm", "matplotlib"),
    *("onnx", "onnxscript", "onnxruntime", "timm"),
    *("pytest", "pytest-xdist", "hypothesis", "pyyaml"),
)
TESTS = (
    *("modules", "replacers", "decomposition", "initialization", "regularization", "models"),
    *("profiler", "optimizers", "training", "checkpoints", "weight_files", "resume"),
    *("hostile_files", "augmentation"),
)


def floors() -> dict[str, str]:
    """The oldest version of each package that pyproject.toml admits."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = dict(re.findall(r'"([\w-]+)>=([\w.]+)', text))
    return {name: found[name] for name in PACKAGES}


def run() -> dict[str, Any]:
    """RuntimeError where they cannot be installed or a test fails."""
    oldest = floors()
    with tempfile.TemporaryDirectory(prefix="oldest-") as name:
        python = Path(name) / "bin" / "python"
        _checked([sys.executable, "-m", "venv", name])
        pins = [f"{package}=={version}" for package, version in oldest.items()]
        _checked([str(python), "-m", "pip", "install", "--quiet", *pins])
        tests = [f"tests/test_{name}.py" for name in TESTS]
        printed = _checked(
            [str(python), "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *tests]
        )
    counts = re.search(r"(\d+) passed(?:, (\d+) skipped)?", printed)
    if counts is None:
        raise RuntimeError(f"no test ran: {printed[-2000:]}")
    return {
        "python": ".".join(map(str, sys.version_info[:2])),
        "oldest": oldest,
        "newest": {package: metadata.version(package).split("+")[0] for package in PACKAGES},
        "tests": int(counts[1]),
        "skipped": int(counts[2] or 0),
    }


def _checked(command: Sequence[str]) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BSCONV_OFFLINE": "1"}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}:\n{ended.stdout[-3000:]}{ended.stderr[-3000:]}")
    return ended.stdout


def section(figures: Mapping[str, Any]) -> str:
    """Both ends of what is admitted."""
    lines = [
        f"{figures['tests']:,} tests of the core pass with the oldest versions that"
        f" `pyproject.toml` admits, on Python {figures['python']}; all tests pass with the newest,"
        " which `requirements.lock` pins.",
        "",
        "| package | oldest | newest |",
        "|---|---|---|",
    ]
    for package, oldest in figures["oldest"].items():
        lines.append(f"| {package} | {oldest} | {figures['newest'][package]} |")
    return "\n".join(lines)
