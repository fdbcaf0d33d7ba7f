"""Make records of finished runs, or put their weights into the package.

usage: python -m bsconv.experiments.results RUN [RUN ...] --machine "2 CPU cores (x86-64)"

With --weights, they are for ``get_model(..., pretrained=...)``, with the record next to them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ...pytorch._tools.errors import one_line
from ..data import load_dataset
from ._from_run import FOLDER, make_record, pack_weights
from ._record import write_record


def main(argv: Sequence[str] | None = None) -> int:
    """Prints each path written; the exit code is 0, or 2 for bad input."""
    parser = argparse.ArgumentParser("python -m bsconv.experiments.results", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="--out of bsconv train")
    parser.add_argument("--machine", required=True, help="what the runs ran on, in words")
    parser.add_argument("--commit", help="short hash of the code that ran")
    parser.add_argument("--note", default="", help="what else one should know about the runs")
    parser.add_argument("--weights", action="store_true", help="pack weights, not records alone")
    parser.add_argument("--data", metavar="DIR", help="where the archives lie (default data)")
    parser.add_argument("--out", type=Path, help="default: results, or the package's own weights")
    given = parser.parse_args(argv)
    about = {"machine": given.machine, "note": given.note, "commit": given.commit}
    try:
        records = [make_record(run, **about) for run in given.runs]
        for run, record in zip(given.runs, records, strict=True):
            if given.weights:
                dataset = load_dataset(record.config.dataset, given.data)
                print(pack_weights(run, dataset, record, given.out or FOLDER))
            else:
                print(write_record(record, given.out or "results"))
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {one_line(error, None)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
