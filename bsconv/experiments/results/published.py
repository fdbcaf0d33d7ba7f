"""The published accuracies of 211 networks on CIFAR-10 and CIFAR-100, from ``published.csv``."""

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

from ..model_sources import architecture as parsed

SOURCE = (
    "D. Haase, M. Amthor: Rethinking Depthwise Separable Convolutions, CVPR 2020, "
    "arXiv 2003.13549; the CIFAR tables published with its code"
)
# of the published training script; whether the tables have its best or its last epoch is not said
PUBLISHED_EPOCHS = 200
VARIANTS = ("dense", "BSConv-U", "BSConv-S")


@dataclass(frozen=True)
class PublishedResult:
    """A row of the tables: top-1 accuracy in percent, size and cost in millions, as printed."""

    dataset: str
    architecture: str
    top1: float
    million_parameters: float
    million_flops: float


def family_and_variant(architecture: str) -> tuple[str, str]:
    """The dense network's name, and which of ``VARIANTS`` the architecture is of it."""
    name = parsed(architecture)
    if name is None:
        return architecture.lower(), "dense"
    return str(name.dense), f"BSConv-{name.variant.upper()}" if name.variant else "dense"


def published_variants(family: str, dataset: str) -> dict[str, PublishedResult]:
    """What is published of a dense network and its BSConv variants, by ``VARIANTS``."""
    return {
        family_and_variant(name)[1]: row
        for (data, name), row in published_results().items()
        if (data, family_and_variant(name)[0]) == (dataset, family)
    }


@functools.cache
def published_results() -> dict[tuple[str, str], PublishedResult]:
    """All rows, by data set and name of the architecture, in the order of the tables."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        _, *lines = csv.reader(file)
    rows = [PublishedResult(data, name, *map(float, numbers)) for data, name, *numbers in lines]
    return {(row.dataset, row.architecture): row for row in rows}
