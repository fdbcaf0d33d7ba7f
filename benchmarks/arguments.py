"""What the command lines of the benchmarks share."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """A whole number from 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return value


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=positive, default=5, help="counted ones (default 5)")
    parser.add_argument("--threads", type=positive, help="of each process (default: all cores)")
