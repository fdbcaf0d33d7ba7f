"""Replacers on some thousands of generated models, and on faults put into them on purpose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

TITLE = "Model surgery, fuzzed"

ROOT = Path(__file__).resolve().parents[3]
TESTS = "tests/core/test_surgery_fuzz.py"
OCCASIONS = ("replaced", "refused", "deepcopy", "pickle", "forward and backward")


def run() -> dict[str, Any]:
    """How many models there were with each feature, and how many faults were noticed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-o",
            "junit_family=xunit1",
            TESTS,
        ]
        subprocess.run(
            [*command, "--junitxml", str(report)],
            cwd=ROOT,
            env={**os.environ, "HYPOTHESIS_PROFILE": "nightly"},
            check=True,
        )
        cases = list(ElementTree.parse(report).iter("testcase"))
    seen: Counter[str] = Counter()
    for case in cases:
        for found in case.iter("property"):
            seen.update(json.loads(found.attrib["value"]))
    faults = [case.attrib["name"] for case in cases if "fault" in case.attrib["name"]]
    return {
        "examples": seen.pop("examples"),
        "occasions": {name: seen.pop(name) for name in OCCASIONS},
        "features": dict(sorted(seen.items())),
        "faults_noticed": sorted(name.partition("[")[2].removesuffix("]") for name in faults),
    }


def section(figures: Mapping[str, Any]) -> str:
    """What was generated how often, and which faults would have been noticed."""
    occasions = figures["occasions"]
    rows = [f"| {name} | {count:,} |" for name, count in figures["features"].items()]
    faults = figures["faults_noticed"]
    return "\n".join(
        [
            f"Hypothesis made {figures['examples']:,} models and replacers for them. Layers were"
            f" replaced in {occasions['replaced']:,}, and {occasions['refused']:,} were refused,"
            " with every bit, hook, flag and attribute as before. For each: `plan` is what `apply`"
            " does and changes nothing, not even the random state; what is shared stays shared;"
            " device, dtype, memory format, `training`, requires_grad and hooks are kept; layers of"
            " other kinds are not touched; a second application changes nothing; the penalty is the"
            " one of the formula, and has finite gradients on its own parameters only.",
            "",
            f"{occasions['forward and backward']:,} of the models take the images made for them:"
            " forward and backward, in train and in eval mode, the replaced model gives the shapes,"
            " calls the hooks and reaches the layers that the dense one does. Where PyTorch can"
            " copy or pickle the dense model, so it can the replaced one"
            f" ({occasions['deepcopy']:,} and {occasions['pickle']:,} times), and the copies are"
            " whole and independent.",
            "",
            "| in the model | models |",
            "| --- | ---: |",
            *rows,
            "",
            f"That the fuzz can fail is tested too: each of {len(faults)} faults put into the"
            f" replacers on purpose is noticed ({', '.join(faults)}).",
        ]
    )
