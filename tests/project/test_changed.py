"""`make quick` takes the tests of the rooms that a change touches, and of who imports these."""

import pytest

from helpers.changed import ALWAYS, paths_for


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        ("bsconv/pytorch/modules.py", {"tests/core"}),
        ("bsconv/pytorch/_tools/convs.py", {"tests/core"}),
        ("bsconv/pytorch/profiler/_costs.py", {"tests/profiler"}),
        ("bsconv/commands/plan.py", {"tests/commands"}),
        ("tests/core/test_modules.py", {"tests/core/test_modules.py"}),
        ("tests/core/test_that_is_gone.py", set()),
        ("tests/helpers/paths.py", set()),
        ("tests/spectra/conftest.py", {"tests/spectra"}),
        ("bsconv/basics/tables.py", {"tests/core"}),
        ("bsconv/pytorch/_forms/form.py", {"tests/pretrained", "tests/inference_benchmark"}),
        ("pyproject.toml", {"tests/project"}),
        ("docs/setup.md", {"tests/project"}),
        ("results/record.py", {"tests/project", "tests/results", "tests/inference_benchmark"}),
    ],
)
def test_tests_of_a_change(file: str, tests: set[str]) -> None:
    found = set(paths_for([file]))
    assert tests <= found
    assert found - tests <= {ALWAYS, "tests/commands", "tests/teaching"}  # these import all of it


def test_rooms_are_joined_by_those_that_import_them() -> None:
    found = paths_for(["bsconv/experiments/files/json_files.py", "tests/files/test_checkpoints.py"])
    assert {"tests/files", "tests/training", "tests/results", "tests/commands"} <= set(found)
    assert "tests/files/test_checkpoints.py" not in found
    assert "tests/core" not in found
    for name in ("config", "rules", "optimizers", "normalization"):  # and these by training
        found = paths_for([f"bsconv/experiments/{name}.py"])
        assert {"tests/training", "tests/commands"} <= set(found)
