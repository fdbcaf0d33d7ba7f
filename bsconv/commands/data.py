"""Find a data set, or download it."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "find or download a data set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", help="cifar10, cifar100, synthetic or a folder of images by class"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="where archives lie (default: $BSCONV_DATA, else data/)",
    )


def run(arguments: argparse.Namespace) -> int:
    from ..experiments.data import DATASETS, data_folder, load_dataset

    name = arguments.name
    dataset = load_dataset(name, arguments.data)
    if name == "synthetic":
        place = "made when it is needed"
    elif name in DATASETS:
        place = str(data_folder(arguments.data) / f"{name}.npz")
    else:
        place = str(Path(name).expanduser().absolute())
    print(
        f"{dataset.name}: {len(dataset.train_images)} training and {len(dataset.test_images)} test "
        f"images in {dataset.num_classes} classes, {place}"
    )
    return 0
