"""No public class or function takes a size of zero, or a bool for a size."""

import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from inspect import isclass, isroutine, signature
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bsconv import pytorch as bp
from bsconv.pytorch import decomposition, initialization, modules, regularization
from bsconv.pytorch._tools import convs

KERNEL, IMAGES = torch.rand(6, 4, 3, 3), torch.rand(2, 3, 8, 8)
CONV = dict.fromkeys(convs.SIZES[:6], 1)
SIZES: dict[str, Any] = CONV | {
    "mid_channels": 2, "min_mid_channels": 4, "blueprints": 2, "num_classes": 10, "slices": 4,
    "values": 9, "align": 8, "batch_size": 2, "positions": 4, "limit": 2, "dimensions": (2, 1),
    "kernel_sizes": (3, (3, 5)), "input_size": (1, 3, 8, 8), "kernel": KERNEL, "source": KERNEL,
    "basis": KERNEL[0, 0], "images": IMAGES, "example_input": IMAGES,
}  # fmt: skip
OF_COMPOSE = {"weights": KERNEL[..., 0, 0], "blueprints": KERNEL[:, 0]}
OTHERS = {"model": nn.Conv2d(3, 8, 3), "architecture": "cifar_resnet20", "make": nn.Conv3d}
PLACES = (bp, modules, decomposition, initialization, regularization, bp.spectra)
PUBLIC = {name: one for place in PLACES for name, one in vars(place).items() if name[0] != "_"}


def calls() -> Iterator[Any]:
    """Each of the public that takes sizes, with valid ones."""
    for name, one in PUBLIC.items():
        ours = isroutine(one) or (isclass(one) and not is_dataclass(one))
        if not ours or not re.match(r"bsconv\.(?!.*_tools)", one.__module__):
            continue
        if name.endswith(("Factors", "Basis")):  # results, and what takes nothing
            continue
        takes = signature(one).parameters
        others = {argument: OTHERS[argument] for argument in takes if argument in OTHERS}
        sizes = SIZES | OF_COMPOSE if name == "compose" else SIZES
        given = {argument: sizes[argument] for argument in takes if argument in sizes}
        given |= CONV if "kwargs" in takes else {}
        if given:
            yield pytest.param(one, others, given, id=name)


def wrong(name: str, value: Any) -> Iterator[Any]:
    """``value`` with a zero, or True, in each of its places."""
    if isinstance(value, Tensor):
        yield from (value.narrow(dimension, 0, 0) for dimension in range(value.dim()))
    elif isinstance(value, tuple):
        for at, one in enumerate(value):
            yield from ((*value[:at], bad, *value[at + 1 :]) for bad in wrong(name, one))
    else:
        yield from [True] if name in ("padding", "min_mid_channels") else [0, True]


@pytest.mark.parametrize(("make", "others", "given"), [*calls()])
def test_no_size_is_zero_or_a_bool(make: Any, others: Any, given: dict[str, Any]) -> None:
    for name, value in given.items():
        for bad in wrong(name, value):
            with pytest.raises(ValueError, match=f"{name}|weight"):
                make(**others | given | {name: bad})
