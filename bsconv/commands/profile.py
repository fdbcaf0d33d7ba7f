"""Count parameters, FLOPs as published, MACs and activations of a model, layer by layer."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ._arguments import MODEL_HELP, add_input_size, usual_size

if TYPE_CHECKING:
    from ..pytorch import ModelProfiler

HELP = "count parameters, FLOPs, MACs and activations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_input_size(parser)
    parser.add_argument("--num-classes", type=int, default=1000, metavar="N", help="default 1000")
    parser.add_argument("--csv", metavar="FILE", help="write the table to a CSV file as well")


def run(arguments: argparse.Namespace) -> int:
    if arguments.num_classes < 1:
        raise ValueError(f"--num-classes must be at least 1, got {arguments.num_classes}")
    profile = _profile(arguments)
    if arguments.csv is not None:
        profile.to_csv(arguments.csv)
    print(profile)
    return 0


def _profile(arguments: argparse.Namespace) -> ModelProfiler:
    import torch

    from ..experiments.model_sources import build_model
    from ..pytorch import ModelProfiler

    def build_and_profile() -> ModelProfiler:
        model = build_model(arguments.model, arguments.num_classes)
        size = arguments.input_size or usual_size(arguments.model, model)
        return ModelProfiler(model, (1, *size))

    try:
        with torch.device("meta"):  # spends nothing on weights
            return build_and_profile()
    except Exception:  # a model that computes with values while it is made or run, or bad input
        return build_and_profile()
