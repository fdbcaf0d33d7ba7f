"""Parameters and FLOPs of the paper's networks: the published tables, and the published package.

All networks are built and run on the meta device, without weights: hundreds of them in a minute.
"""

import functools
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from bsconv.experiments.results import published_results
from bsconv.pytorch import ModelProfiler, get_model, list_models

CLASSES = {"cifar10": 10, "cifar100": 100}
ROWS = {"cifar10": 98, "cifar100": 113}
FAMILIES = ("resnet", "preresnet", "wrn", "mobilenet")


@pytest.fixture(autouse=True)
def no_initialisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to fill, yet it would take most of the time."""
    for name in vars(nn.init):
        if name.endswith("_") and not name.startswith("_"):
            monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)


@functools.cache
def counts(architecture: str, num_classes: int) -> tuple[int, int]:
    """Parameters and FLOPs."""
    side = 32 if architecture.startswith("cifar_") else 224
    gc.disable()  # it would look through a growing model over and over
    try:
        with torch.device("meta"):
            model = get_model(architecture, num_classes)
        profiler = ModelProfiler(model, (1, 3, side, side))
    finally:
        gc.enable()
    return profiler.total_parameter_count, profiler.total_flop_count


@pytest.mark.parametrize("dataset", CLASSES)
def test_the_published_tables_come_out_to_the_printed_decimals(dataset: str) -> None:
    printed = {
        name: (f"{row.million_parameters:.2f}", f"{row.million_flops:.2f}")
        for (data, name), row in published_results().items()
        if data == dataset
    }
    assert len(printed) == ROWS[dataset]
    counted = {
        name: tuple(f"{count / 1e6:.2f}" for count in counts(name, CLASSES[dataset]))
        for name in printed
    }
    assert counted == printed


# The published profiler makes its input, and runs BatchNorm and ReLU, in ways that the meta device
# refuses or takes milliseconds for; shapes are all that it looks at.
PUBLISHED = """
import gc
import warnings
from torch import nn
from bsconv.pytorch import ModelProfiler, get_model

warnings.simplefilter("ignore")  # of types that it has no FLOPs for
for name in vars(nn.init):
    if name.endswith("_") and not name.startswith("_"):
        setattr(nn.init, name, lambda tensor, *_, **__: tensor)
for layer in (nn.BatchNorm2d, nn.ReLU, nn.ReLU6):
    layer.forward = lambda self, input: input
ModelProfiler.get_input = lambda self, size, device: torch.empty(size, device="meta")

def counts(name):
    side = 32 if name.startswith("cifar_") else 224
    gc.disable()
    with torch.device("meta"):
        model = get_model(architecture=name, num_classes=10)
    profiler = ModelProfiler(model, (1, 3, side, side))
    gc.enable()
    return profiler.total_parameter_count, profiler.total_flop_count

result, refused = {}, {}
for name in arguments[0]:
    try:
        result[name] = counts(name)
    except Exception as error:
        refused[name] = repr(error)
torch.save([result, refused], "result.pt")
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_counts_exactly_as_in_the_published_package(
    published: Callable[..., Any], family: str
) -> None:
    names = [n for n in list_models() if n.removeprefix("cifar_").startswith(family)]
    theirs, refused = published(PUBLISHED, names, timeout=900)
    assert refused == {}, "the published package cannot build or profile these"
    assert {name: counts(name, 10) for name in names} == theirs


def test_the_families_are_all_there_is() -> None:
    assert all(name.removeprefix("cifar_").startswith(FAMILIES) for name in list_models())
