"""--json: one document with stable keys; and what helps to type commands."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bsconv.__main__ import COMMANDS, main
from bsconv.pytorch import BSConvU_Replacer, ModelProfiler, get_model


def document(capsys: pytest.CaptureFixture[str], line: str) -> dict[str, object]:
    capsys.readouterr()
    assert main([*line.split(), "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


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
def test_one_document(line: str, keys: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert document(capsys, line).keys() == keys


def test_numbers_are_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """And a cifar model has ten classes."""
    rows = document(capsys, "profile cifar_resnet20")["rows"]
    assert isinstance(rows, list)
    profile = ModelProfiler(get_model("cifar_resnet20", 10), (1, 3, 32, 32))
    assert sum(row["parameters"] for row in rows) == profile.total_parameter_count


def test_bare_bsconv_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "usage: bsconv" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*COMMANDS, "new-head"))


@pytest.mark.slow
def test_bash_completes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["completion", "bash"])
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
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
def test_plan_proposes_the_largest_within_a_target(
    target: str, proposed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    variants = document(capsys, f"plan cifar_resnet20 {target}")["variants"]
    assert isinstance(variants, list)
    assert [row["form"] for row in variants if row["proposed"]] == proposed
    assert variants[0]["share_of_macs"] == 1
    plan = BSConvU_Replacer().plan(get_model("cifar_resnet20", 10))
    assert variants[1]["parameters"] == plan.parameters_after


def test_a_target_chooses_the_form(failure: Callable[..., str]) -> None:
    line = ("plan", "cifar_resnet20", "--bsconv", "u", "--target-macs", "1/4")
    assert "a target chooses the form itself" in failure(*line)
