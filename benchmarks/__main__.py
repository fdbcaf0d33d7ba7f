"""The command line of the benchmarks: ``python -m benchmarks [BENCHMARK] ...``, see README.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import engines, inference, penalty, replacing, spectra, training
from .arguments import add_common_arguments
from .contenders import ContenderError
from .records import RESULTS, Record

# one file each: add_arguments(parser), and run(arguments), which yields what it has compared
BENCHMARKS = {
    "training": training,
    "replacing": replacing,
    "penalty": penalty,
    "spectra": spectra,
    "inference": inference,
    "engines": engines,
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)
    for name, module in BENCHMARKS.items():
        text = (module.__doc__ or "").strip()
        command = commands.add_parser(
            name, help=text.splitlines()[0], description=text, allow_abbrev=False
        )
        module.add_arguments(command)
        _add_shared(command)
    _add_shared(commands.add_parser("all", help="each of them as it comes", allow_abbrev=False))
    return parser


def _add_shared(parser: argparse.ArgumentParser) -> None:
    add_common_arguments(parser)
    parser.add_argument(
        "--machine", help='its class in words, such as "2 CPU cores (x86-64)"; never a host name'
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="default: benchmarks/results")
    parser.add_argument("--no-record", action="store_true", help="print the figures alone")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = make_parser().parse_args(argv)
    record = Record(arguments.machine, arguments.out)
    code = 0
    for name in BENCHMARKS if arguments.benchmark == "all" else [arguments.benchmark]:
        try:
            for comparison in BENCHMARKS[name].run(_arguments_of(name, arguments)):
                print(comparison, flush=True)
                record.add(comparison)
                if not arguments.no_record:
                    record.write()  # each time: what is interrupted keeps what was measured
        except (ContenderError, OSError, ValueError) as error:
            print(f"benchmarks: {name}: {error}", file=sys.stderr)
            code = 2  # the others need not miss what this one misses
    if record.path is not None:
        print(f"recorded in {record.path.parent.name}/{record.path.name}")
    return code


def _arguments_of(name: str, given: argparse.Namespace) -> argparse.Namespace:
    """For "all": the defaults of one benchmark, with what is shared as it was given."""
    if given.benchmark != "all":
        return given
    return argparse.Namespace(**{**vars(make_parser().parse_args([name])), **vars(given)})


if __name__ == "__main__":
    sys.exit(main())
