"""Find a data set, or download it."""

import argparse
from pathlib import Path

from ..experiments.config import TrainConfig
from ..experiments.rules import DATASETS
from ._arguments import IMAGES, add_settings, given_settings

HELP = "find or download a data set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "cifar10, cifar100, synthetic or a folder of images by class"
    parser.add_argument("dataset", metavar="NAME", help=text)
    add_settings(parser, "data", *IMAGES)


def run(arguments: argparse.Namespace) -> None:
    from ..experiments.data import data_folder, load_dataset

    TrainConfig(**given_settings(arguments))  # refuses what a run would
    name, options = arguments.dataset, {option: getattr(arguments, option) for option in IMAGES}
    dataset = load_dataset(name, arguments.data, **options)
    archive = data_folder(arguments.data) / f"{name}.npz"
    place = archive if name in DATASETS else Path(name).absolute()
    print(f"{dataset}, {'made when it is needed' if name == 'synthetic' else place}")
