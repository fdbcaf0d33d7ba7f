"""Run checks of reliability, record their figures and write docs/reliability.md, see README.md."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence

from . import checks, page, records


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("reliability", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "checks",
        nargs="*",
        type=_known,  # argparse's own choices refuse that there is none, on Python 3.10 and 3.11
        metavar="CHECK",
        help=f"{', '.join(checks.NAMES)} (default: all); page: write docs/reliability.md only",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    names = make_parser().parse_args(argv).checks or checks.NAMES
    failed = [name for name in names if name != "page" and not _passes(name)]
    page.write()
    if failed:
        print(f"reliability: FAILED: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _known(name: str) -> str:
    if name not in ("page", *checks.NAMES):
        known = ", ".join(("page", *checks.NAMES))
        raise argparse.ArgumentTypeError(f"must be one of {known}, got {name!r}")
    return name


def _passes(name: str) -> bool:
    """Run a check and keep its figures; a broken promise keeps the former ones."""
    print(f"reliability: {name} ...", flush=True)
    started = time.monotonic()
    try:
        figures = checks.load(name).run()
    except Exception:  # the other checks need not miss what this one finds
        traceback.print_exc()
        return False
    seconds = time.monotonic() - started
    records.write(name, figures, seconds)
    print(f"reliability: {name} passed in {seconds / 60:.1f} minutes", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
