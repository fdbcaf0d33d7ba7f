"""Outcomes of mutants as figures: by module and as a score with its uncertainty."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

KILLED = ("killed", "timeout")  # what never ends has been noticed too


def module_of(name: str) -> str:
    """``modules`` of ``bsconv.pytorch.modules.xǁBSConvUǁforward__mutmut_1``."""
    return name.rpartition(".")[0].removeprefix("bsconv.pytorch.")


def survivors(outcomes: Mapping[str, str]) -> list[str]:
    """The mutants that no test noticed, those that no test reaches among them."""
    return [name for name, outcome in outcomes.items() if outcome not in KILLED]


def by_module(outcomes: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """For each module, how many mutants had which outcome."""
    counts: dict[str, Counter[str]] = {}
    for name, outcome in outcomes.items():
        counts.setdefault(module_of(name), Counter())[outcome] += 1
    return {module: dict(sorted(counts[module].items())) for module in sorted(counts)}


def totals(modules: Mapping[str, Mapping[str, int]]) -> Counter[str]:
    """The outcomes of all modules together."""
    return sum((Counter(counts) for counts in modules.values()), Counter[str]())


def score(counts: Mapping[str, int]) -> float:
    """The share that was killed; what no test reaches was not."""
    return sum(counts.get(outcome, 0) for outcome in KILLED) / sum(counts.values())


def interval(share: float, count: int) -> tuple[float, float]:
    """Where the share of all lies with 95 % confidence, if ``count`` drawn at random have this one.

    Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    z = 1.96
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return middle - half, middle + half
