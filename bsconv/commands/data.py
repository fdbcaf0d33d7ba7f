"""Find a data set, or download it."""

import argparse
from pathlib import Path

from ..experiments.config import TrainConfig
from ..experiments.rules import CLASS_COUNTS
from ._arguments import ARCHIVES, IMAGES, add_settings, only_with

HELP = "find or download a data set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "cifar10, cifar100, synthetic or a folder of images by class"
    parser.add_argument("name", metavar="NAME", help=text)
    add_settings(parser, "data", *IMAGES)


def run(arguments: argparse.Namespace) -> None:
    from ..experiments.data import DATASETS, data_folder, load_dataset

    name = arguments.name
    only_with(name in CLASS_COUNTS, ARCHIVES, arguments, "data")
    options = {option: getattr(arguments, option) for option in IMAGES}
    TrainConfig(**options)  # refuses what a run would
    dataset = load_dataset(name, arguments.data, **options)
    place = Path(name).expanduser().absolute()
    if name in DATASETS:
        place = data_folder(arguments.data) / f"{name}.npz"
    print(f"{dataset}, {'made when it is needed' if name == 'synthetic' else place}")
