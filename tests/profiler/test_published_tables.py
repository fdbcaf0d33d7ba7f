"""Parameters and FLOPs of the paper's networks: the published tables, and what 0.4.0 counted.

All networks are built on the meta device, without weights; `make nightly` takes every one.
"""

import pytest
from torch import nn

from bsconv.experiments.results import published_results
from bsconv.pytorch import list_models
from golden import measures, recorded

THEIRS = recorded("counts")
STEPS = [  # every twelfth is counted by day
    pytest.param(12, marks=pytest.mark.slow),
    pytest.param(1, marks=pytest.mark.nightly),
]


@pytest.fixture(autouse=True)
def no_initialisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to fill, yet it would take most of the time."""
    for name in vars(nn.init):
        if name.endswith("_") and not name.startswith("_"):
            monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)


def printed(dataset: str) -> dict[str, list[str]]:
    return {
        name: [f"{row.million_parameters:.2f}", f"{row.million_flops:.2f}"]
        for (data, name), row in published_results().items()
        if data == dataset
    }


def in_millions(counts: dict[str, list[int]]) -> dict[str, list[str]]:
    return {name: [f"{count / 1e6:.2f}" for count in found] for name, found in counts.items()}


def test_the_published_tables_are_what_was_counted_to_the_printed_decimals() -> None:
    rows = printed("cifar10")
    assert len(rows) == 98
    assert in_millions({name: THEIRS[name] for name in rows}) == rows


@pytest.mark.parametrize("step", STEPS)
def test_the_published_tables_come_out_to_the_printed_decimals(step: int) -> None:
    rows = printed("cifar100")
    assert len(rows) == 113
    chosen = list(rows)[::step]
    assert in_millions(measures.counts(chosen, 100)) == {name: rows[name] for name in chosen}


@pytest.mark.parametrize("step", STEPS)
def test_names_count_exactly_as_in_the_published_package(step: int) -> None:
    chosen = list_models()[::step]
    assert measures.counts(chosen) == {name: THEIRS[name] for name in chosen}


def test_what_was_counted_is_every_name_that_there_is() -> None:
    assert list(THEIRS) == list_models()
