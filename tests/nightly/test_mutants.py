"""Whether the quick tests notice wrong code: coverage of the library, and mutants of its core."""

from __future__ import annotations

import datetime
import math
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from helpers.reliability import Section
from nightly import mutants

pytestmark = pytest.mark.nightly

SAMPLE = 400
LEAST_SCORE = 0.85
LEAST_COVERAGE = {"lines": 0.98, "branches": 0.95}

SURVIVORS = """\
Survivors are read; they are of these kinds:

- *The same program.* `None` or an argument left out where that is the default or means the same, a
  letter that no pattern looks at, an in-place operation or not, another size of numbers that only
  have to be equal.
- *A check of what cannot happen.* `zip(..., strict=True)` over lists of which the line before makes
  equal lengths; it is there for whoever changes that line.
- *Seen on other devices only.* What moves numbers to the device of a model, or away from one that
  lacks float64: the tests run on a CPU. `tests/project/test_cuda.py` holds it where there is a GPU.
- *What takes too long here.* Slow tests of models and of training see more.
- *A missing test.* What a test ought to notice: tests are added as these are found.
"""


def test_quick_tests_reach_the_library_and_kill_mutants_of_the_core(
    tmp_path: Path, section: Section
) -> None:
    seed = datetime.date.today().isoformat()
    mutants.copy_project(tmp_path)
    covered = mutants.coverage(tmp_path)
    assert all(covered[what] >= least for what, least in LEAST_COVERAGE.items()), covered
    names = mutants.all_names(tmp_path)
    outcomes = mutants.try_out(tmp_path, random.Random(seed).sample(names, SAMPLE), 2)
    survivors = [name for name, outcome in outcomes.items() if outcome not in mutants.KILLED]
    changes = mutants.changes(tmp_path, survivors)
    killed = 1 - len(survivors) / SAMPLE
    assert killed >= LEAST_SCORE, changes
    low, high = interval(killed, SAMPLE)
    counts = ", ".join(f"{n} {outcome}" for outcome, n in Counter(outcomes.values()).most_common())
    section(
        "Tests notice wrong code",
        f"The quick tests of `bsconv.pytorch` reach {covered['lines']:.1%} of its lines and"
        f" {covered['branches']:.1%} of its branches. A mutant is code with one thing changed in"
        " it, such as `<` to `<=`, `2` to `3` or an argument left out, as mutmut makes them in"
        " every function that has no decorator; it is killed if a test then fails. Of"
        f" {len(names):,} mutants of the core (its public files, `_layer_plans.py`, `_tools/`),"
        f" {SAMPLE} are drawn by the date and tried with the quick tests of `tests/core` alone:"
        f" {killed:.1%} of those of {seed} were killed ({counts}), so that {low:.1%} to {high:.1%}"
        f" of all are, with 95 % confidence. Less than {LEAST_SCORE:.0%} fails the test.\n\n"
        f"{SURVIVORS}\n{table(changes)}",
    )


def interval(share: float, count: int) -> tuple[float, float]:
    """Where the share of all lies with 95 % confidence, if ``count`` drawn at random have this one.

    Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    z = 1.96
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return middle - half, middle + half


def table(changes: Mapping[str, list[str]]) -> str:
    rows = ["| survived in | the code | the mutant |", "|---|---|---|"]
    for name, lines in changes.items():
        code, mutant = (
            " ".join(line[1:].strip() for line in lines if line[0] == sign).replace("|", "\\|")
            for sign in "-+"
        )
        rows.append(f"| {readable(name)} | `{code}` | `{mutant}` |")
    return "\n".join(rows)


def readable(name: str) -> str:
    """``modules.BSConvU.forward`` of ``bsconv.pytorch.modules.xǁBSConvUǁforward__mutmut_1``."""
    module, _, function = name.removeprefix("bsconv.pytorch.").rpartition(".")
    function = function.partition("__mutmut")[0].removeprefix("x_").removeprefix("xǁ")
    return f"{module}.{function.replace('ǁ', '.')}"
