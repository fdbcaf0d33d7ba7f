"""Count parameters, FLOPs as published, MACs and activations of a model, layer by layer."""

from __future__ import annotations

import argparse

from ._arguments import MODEL_HELP, add_input_size, add_num_classes
from ._models import usual_classes, usual_size
from ._output import ROWS, add_csv, add_json, check_files, print_table

HELP = "count parameters, FLOPs, MACs and activations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_input_size(parser)
    add_num_classes(parser)
    add_csv(parser)
    add_json(parser, f"model, {ROWS}")


def run(arguments: argparse.Namespace) -> int:
    check_files(None, arguments.csv)

    import torch

    from ..experiments.model_sources import build_model
    from ..pytorch import ModelProfiler

    def build_and_profile() -> ModelProfiler:
        classes = arguments.num_classes or usual_classes(arguments.model)
        model = build_model(arguments.model, classes)
        size = arguments.input_size or usual_size(arguments.model, model)
        return ModelProfiler(model, (1, *size))

    try:
        with torch.device("meta"):  # spends nothing on weights
            profile = build_and_profile()
    except Exception:  # a model that computes with values while it is made or run, or bad input
        profile = build_and_profile()
    print_table(arguments, profile, model=arguments.model)
    return 0
