"""Make records of finished runs.

usage: python -m bsconv.experiments.results RUN [RUN ...] --machine "2 CPU cores (x86-64)"
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ._from_run import command, make_record
from ._record import write_record


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code is 0, or 2 for bad input; then nothing is written."""
    parser = argparse.ArgumentParser("python -m bsconv.experiments.results", description=__doc__)
    parser.add_argument("--note", default="", help="what else one should know about the runs")
    parser.add_argument("--out", type=Path, default="results", help="default: results")
    return command(parser, _write, argv)


def _write(given: argparse.Namespace) -> Iterator[Path]:
    records = [
        make_record(run, machine=given.machine, note=given.note, commit=given.commit)
        for run in given.runs
    ]
    for record in records:
        yield write_record(record, given.out)


if __name__ == "__main__":
    sys.exit(main())
