"""Count parameters, FLOPs as published, MACs and activations of a model, layer by layer."""

import argparse

from ._arguments import MODEL_HELP, add_input_size, add_num_classes
from ._models import untrained
from ._output import ROWS, add_csv, add_json, check_files, print_table

HELP = "count parameters, FLOPs, MACs and activations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_input_size(parser)
    add_num_classes(parser)
    add_csv(parser)
    add_json(parser, f"model, {ROWS}")


def run(arguments: argparse.Namespace) -> None:
    check_files(None, arguments.csv)

    import torch

    from ..pytorch import ModelProfiler

    try:
        with torch.device("meta"):  # spends nothing on weights
            profile = ModelProfiler(*untrained(arguments))
    except Exception:  # a model that computes with values while it is made or run, or bad input
        profile = ModelProfiler(*untrained(arguments))
    print_table(arguments, profile, model=arguments.model)
