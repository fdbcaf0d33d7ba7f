"""List the architectures that train and plan know by name."""

import argparse

from ..basics.errors import meant
from ._output import add_json, print_json

HELP = "list the architectures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "such as 'cifar_*_bsconvu'"
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help=text)
    add_json(parser, "models")


def run(arguments: argparse.Namespace) -> None:
    from ..pytorch import list_models

    names = list_models(arguments.pattern)
    if not names:
        near = meant(arguments.pattern, list_models(), ", see `bsconv models`")
        raise ValueError(f"no architecture matches {arguments.pattern!r}{near}")
    if arguments.json:
        print_json(models=names)
    else:
        print(*names, sep="\n")
