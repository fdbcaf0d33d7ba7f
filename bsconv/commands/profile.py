"""Count parameters, FLOPs as published, MACs and activations of a model, layer by layer."""

from __future__ import annotations

import argparse

from ._arguments import MODEL_HELP, add_csv, add_input_size, add_num_classes
from ._models import usual_size

HELP = "count parameters, FLOPs, MACs and activations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_input_size(parser)
    add_num_classes(parser)
    add_csv(parser)


def run(arguments: argparse.Namespace) -> int:
    import torch

    from ..experiments.model_sources import build_model
    from ..pytorch import ModelProfiler

    def build_and_profile() -> ModelProfiler:
        model = build_model(arguments.model, arguments.num_classes)
        size = arguments.input_size or usual_size(arguments.model, model)
        return ModelProfiler(model, (1, *size))

    try:
        with torch.device("meta"):  # spends nothing on weights
            profile = build_and_profile()
    except Exception:  # a model that computes with values while it is made or run, or bad input
        profile = build_and_profile()
    if arguments.csv is not None:
        profile.to_csv(arguments.csv)
    print(profile)
    return 0
