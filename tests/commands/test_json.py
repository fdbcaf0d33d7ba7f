"""--json: one document with stable keys; and what helps to type commands."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bsconv.__main__ import COMMANDS
from bsconv.pytorch import BSConvU_Replacer, ModelProfiler, get_model


def document(said: Any, line: str) -> Any:
    return json.loads(said(*line.split(), "--json").out)


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("models cifar_*", {"models"}),
        ("plan cifar_resnet20", {"model", "layers", "parameters_before", "parameters_after"}),
        ("profile cifar_resnet20", {"model", "rows"}),
        ("spectra cifar_resnet20", {"model", "rows"}),
        ("results", {"rows"}),
    ],
)
def test_one_document(line: str, keys: set[str], said: Any) -> None:
    assert document(said, line).keys() == keys


def test_numbers_are_numbers(said: Any) -> None:
    """And a cifar model has ten classes."""
    rows = document(said, "profile cifar_resnet20")["rows"]
    profile = ModelProfiler(get_model("cifar_resnet20", 10), (1, 3, 32, 32))
    assert sum(row["parameters"] for row in rows) == profile.total_parameter_count


def test_bare_bsconv_prints_its_help(said: Any) -> None:
    assert "usage: bsconv" in said().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell: str, said: Any) -> None:
    printed = said("completion", shell).out
    assert all(name in printed for name in (*COMMANDS, "new-head"))


@pytest.mark.slow
def test_bash_completes(said: Any, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(said("completion", "bash").out)
    for words, expected in (("tr", "train"), ("train --new", "--new-head")):
        typed = f"bsconv {words}".split()
        code = f"COMP_WORDS=({' '.join(typed)}); COMP_CWORD={len(typed) - 1}; _bsconv"
        found = subprocess.run(
            ["bash", "-c", f'. {script}; {code}; echo "${{COMPREPLY[@]}}"'],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert found.stdout.split() == [expected]


@pytest.mark.parametrize(
    ("target", "proposed"),
    [("--target-macs 12%", ["BSConv-S, p = 1/4"]), ("--target-parameters 1%", [])],
)
def test_plan_proposes_the_largest_within_a_target(target: str, proposed: list[str], said) -> None:
    variants = document(said, f"plan cifar_resnet20 {target}")["variants"]
    assert [row["form"] for row in variants if row["proposed"]] == proposed
    text = "is the largest within" if proposed else "none costs 1% or less"
    assert text in said(*f"plan cifar_resnet20 {target}".split()).out
    assert variants[0]["share_of_macs"] == 1
    plan = BSConvU_Replacer().plan(get_model("cifar_resnet20", 10))
    assert variants[1]["parameters"] == plan.parameters_after
