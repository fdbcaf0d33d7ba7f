"""Try mutants of bsconv/pytorch and print what each survivor has otherwise.

Those whose names match one of PATTERN are tried, such as "*.modules.*BSConvU*". Without a pattern
it is all of them, which takes hours, and their figures are recorded for docs/reliability.md. In a
FOLDER that is kept, a run that was cut short goes on, and what was killed, in a function that is
still the same, is not tried again.
"""

from __future__ import annotations

import argparse
import fnmatch
import tempfile
import time
from pathlib import Path

from .. import mutants, records
from . import score


def main() -> None:
    parser = argparse.ArgumentParser("nightly.mutants", description=__doc__)
    parser.add_argument("patterns", nargs="*", metavar="PATTERN")
    parser.add_argument("--folder", type=Path, help="for the copy of the project (default: none)")
    parser.add_argument("--processes", type=int, default=1, help="at once (default: 1)")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        arguments.folder.mkdir(exist_ok=True)
        return _try(arguments.folder, arguments.patterns, arguments.processes)
    with tempfile.TemporaryDirectory() as folder:
        _try(Path(folder), arguments.patterns, arguments.processes)


def _try(folder: Path, patterns: list[str], processes: int) -> None:
    started = time.monotonic()
    mutants.copy_project(folder)
    before = mutants.outcomes(folder)
    if patterns:
        names = mutants.all_names(folder)
        chosen = [name for name in names if any(fnmatch.fnmatch(name, p) for p in patterns)]
        mutants.try_out(folder, processes, chosen)
    else:
        mutants.try_out(folder, processes)
        chosen = list(mutants.outcomes(folder))
    found = mutants.outcomes(folder)
    again = [name for name in score.survivors(found) if found[name] == before.get(name)]
    if again and not patterns:
        mutants.try_out(folder, processes, again)
        found = mutants.outcomes(folder)
    found = {name: found[name] for name in chosen}
    mutants.print_changes(mutants.changes(folder, score.survivors(found)))
    modules = score.by_module(found)
    print(f"{score.score(score.totals(modules)):.1%} of {len(found)} killed")
    if not patterns:
        records.write("all_mutants", {"modules": modules}, time.monotonic() - started)


if __name__ == "__main__":
    main()
