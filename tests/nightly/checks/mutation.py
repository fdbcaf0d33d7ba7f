"""Whether the tests of bsconv/pytorch notice wrong code: coverage, and the mutants they kill."""

from __future__ import annotations

import datetime
import os
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import mutants, records
from ..mutants import score

TITLE = "Tests notice wrong code"

SAMPLE = 400
LEAST_SCORE = 0.85
LEAST_COVERAGE = 0.95


def run() -> dict[str, Any]:
    """Measure coverage, try mutants drawn by the date; RuntimeError if too little is noticed."""
    seed = datetime.date.today().isoformat()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mutants.copy_project(folder)
        covered = mutants.coverage(folder)
        print(f"  lines {covered['lines']:.1%}, branches {covered['branches']:.1%}", flush=True)
        if min(covered.values()) < LEAST_COVERAGE:
            raise RuntimeError(f"the tests reach less than {LEAST_COVERAGE:.0%}: {covered}")
        names = mutants.all_names(folder)
        drawn = random.Random(seed).sample(names, SAMPLE)
        mutants.try_out(folder, os.cpu_count() or 1, drawn)
        outcomes = mutants.outcomes(folder)
        found = {name: outcomes[name] for name in drawn}
        survivors = mutants.changes(folder, score.survivors(found))
        mutants.print_changes(survivors)
    modules = score.by_module(found)
    share = score.score(score.totals(modules))
    if share < LEAST_SCORE:
        raise RuntimeError(f"the tests killed {share:.1%} of {SAMPLE} mutants")
    return {
        "coverage": covered,
        "seed": seed,
        "all": len(names),
        "modules": modules,
        "survivors": survivors,
    }


def section(figures: Mapping[str, Any]) -> str:
    """The sample, then all mutants by module as they were last tried, and why some survive."""
    covered = figures["coverage"]
    counts = score.totals(figures["modules"])
    share, tried = score.score(counts), counts.total()
    low, high = score.interval(share, tried)
    return (
        f"The tests of `{mutants.MUTATED}` reach {covered['lines']:.1%} of its lines and"
        f" {covered['branches']:.1%} of its branches. A mutant is that code with one thing changed"
        " in it, such as `<` to `<=`, `2` to `3` or an argument left out, as mutmut makes them in"
        " every function that has no decorator; it is killed if a test then fails. Of"
        f" {figures['all']:,}, {tried} are drawn every night, by the date:"
        f" {share:.1%} of those of {figures['seed']} were killed ({_listed(counts)}), so that"
        f" {low:.1%} to {high:.1%} of all are, with 95 % confidence. Less than {LEAST_SCORE:.0%}"
        f" killed, or less than {LEAST_COVERAGE:.0%} reached, fails the check.\n\n"
        f"{_explained()}\n\n{_table(figures['survivors'])}\n\n{_all_mutants()}"
    )


def _explained() -> str:
    """Why mutants survive, kind by kind, as they were read."""
    path = Path(mutants.__file__).with_name("survivors.md")
    return path.read_text(encoding="utf-8").strip()


def _table(survivors: Mapping[str, list[str]]) -> str:
    """A row for each survivor, where it is and what it has otherwise."""
    rows = ["| survived in | the code | the mutant |", "|---|---|---|"]
    for name, lines in survivors.items():
        place, _, function = name.rpartition("__mutmut_")[0].rpartition(".")
        function = function.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
        module = place.removeprefix("bsconv.pytorch.")
        was, became = (
            " ".join(f"`{line[1:].strip()}`" for line in lines if line[0] == sign).replace(
                "|", "\\|"
            )
            for sign in "-+"
        )
        rows.append(f"| {module}.{function} | {was} | {became} |")
    return "\n".join(rows)


def _all_mutants() -> str:
    record = records.read("all_mutants")
    if record is None:
        return "`python -m nightly.mutants` tries all of them, for some hours."
    modules = record["figures"]["modules"]
    counts = score.totals(modules)
    rows = ["| module | mutants | killed | survived | share killed |", "|---|---|---|---|---|"]
    for name, found in {"all": counts, **modules}.items():
        total = sum(found.values())
        share = score.score(found)
        left = total - round(share * total)
        rows.append(f"| {name} | {total:,} | {total - left:,} | {left:,} | {share:.1%} |")
    return (
        f"All {counts.total():,} were tried on {record['date']} (`python -m nightly.mutants`):"
        f" {score.score(counts):.1%} were killed ({_listed(counts)}).\n\n" + "\n".join(rows)
    )


def _listed(counts: Mapping[str, int]) -> str:
    """Such as "365 killed, 2 timeout, 33 survived"."""
    return ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(counts.items()))
