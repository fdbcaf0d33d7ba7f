"""List the architectures that train and plan know by name."""

from __future__ import annotations

import argparse

HELP = "list the architectures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "pattern", nargs="?", default="*", metavar="PATTERN", help="such as 'cifar_*_bsconvu'"
    )


def run(arguments: argparse.Namespace) -> int:
    from ..pytorch import list_models

    names = list_models(arguments.pattern)
    if not names:
        raise ValueError(f"no architecture matches {arguments.pattern!r}, see `bsconv models`")
    for name in names:
        print(name)
    return 0
