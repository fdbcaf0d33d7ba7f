"""Replacers on a handful of other people's models; `make nightly` tries some hundreds."""

import re

import pytest
import torch
from torch import nn

from nightly import test_foreign_models as nightly
from nightly.foreign import libraries, table, trial

for library in libraries.LIBRARIES:
    pytest.importorskip(library)

# library, model, layers replaced, what is kept
MODELS = [
    ("torchvision", "resnet18", 16, {"of 1x1": 3, "of another size": 1}),
    ("torchvision", "squeezenet1_1", 9, {"of 1x1": 17}),
    ("torchvision", "googlenet", 19, {"of 1x1": 39, "of another size": 1}),  # three outputs
    ("torchvision", "mobilenet_v3_small", 1, {"of 1x1": 40, "grouped": 11}),
    ("pytorchcv", "resnet20_cifar10", 19, {"of 1x1": 2}),
    ("pytorchcv", "sharesnet18", 12, {"of 1x1": 3, "of another size": 1}),  # layers used twice
    ("timm", "test_resnet", 10, {"of 1x1": 5}),
]
UNCHANGED = [
    ("pytorchcv", "octresnet10_ad2", {"OctConv": 12, "of another size": 1}),
    ("timm", "nf_regnet_b0", {"ScaledStdConv2d": 54, "of 1x1": 32}),
]


class Net(nn.Sequential):
    """A model that no library has."""

    def __init__(self, layer: type[nn.Conv2d] = nn.Conv2d) -> None:
        super().__init__(layer(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3))
        self.in_size = (12, 12)


class ReadingWeights(Net):
    """Works with layers alone that have a weight."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * self[1].weight.mean()


@pytest.mark.parametrize(("library", "model", "replaced", "kept"), MODELS)
def test_a_model_works_as_bsconv(library, model, replaced, kept):
    found = trial.trial(library, model)
    assert found["outcome"] == "works"
    assert found["replaced"] == {"U": replaced, "S": replaced}
    assert found["kept"] == kept
    parameters = found["parameters"]
    assert parameters["U"] < parameters["dense"]
    assert parameters["S"] < parameters["dense"]


@pytest.mark.parametrize(("library", "model", "kept"), UNCHANGED)
def test_a_model_of_other_layers_stays_as_it_is(library, model, kept):
    found = trial.trial(library, model)
    assert found["outcome"] == "nothing to replace"
    assert found["kept"] == kept


def test_a_large_model_is_tried_by_its_shapes(monkeypatch):
    monkeypatch.setattr(trial, "LARGE", 1000)
    found = trial.trial("pytorchcv", "resnet20_cifar10")
    assert (found["outcome"], found["device"]) == ("works", "meta")


@pytest.mark.parametrize("format", nightly.FORMATS)
def test_a_model_is_exported_too(format):
    assert trial.trial("timm", "test_resnet", format)["exported"] == format


def test_a_model_that_does_not_run_itself_is_listed_with_the_reason(monkeypatch):
    monkeypatch.setattr(trial, "build", lambda library, name: Net())
    monkeypatch.setattr(trial, "input_sizes", lambda *_: [(3, 2, 2), (4, 9, 9)])
    found = trial.trial("pytorchcv", "net")
    assert re.fullmatch(
        "not run: RuntimeError: .* to have 3 channels, but got 4.*", found["outcome"]
    )
    assert found["replaced"] == {"U": 2, "S": 2}


def test_a_model_that_works_no_longer_is_an_error(monkeypatch):
    monkeypatch.setattr(trial, "build", lambda library, name: ReadingWeights())
    with pytest.raises(AttributeError, match="'BSConvU' object has no attribute 'weight'"):
        trial.trial("pytorchcv", "net")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda model: model.append(nn.Conv2d(16, 16, 1)), "parameters, planned"),
        (lambda model: model.append(nn.AvgPool2d(2)), "instead of"),
        (lambda model: model[1].requires_grad_(False), "instead of"),
    ],
    ids=["another layer", "other shapes", "a layer that learns no longer"],
)
def test_a_replacer_that_does_something_else_is_an_error(spoil, message, monkeypatch):
    finish = trial.BSConvU_Replacer._finish

    def finish_spoiled(replacer, model):
        finish(replacer, model)
        spoil(model)

    monkeypatch.setattr(trial.BSConvU_Replacer, "_finish", finish_spoiled)
    monkeypatch.setattr(trial, "build", lambda library, name: Net())
    with pytest.raises(AssertionError, match=message):
        trial.trial("pytorchcv", "net")


def test_the_rules_choose_enough_models_that_are_there():
    timm = pytest.importorskip("timm")
    chosen = {library: libraries.names(library) for library in libraries.LIBRARIES}
    assert len(chosen["torchvision"]) >= 80
    assert len(chosen["pytorchcv"]) >= 150
    assert len(chosen["timm"]) >= 100
    assert set(chosen["timm"]) <= set(timm.list_models())
    for names in chosen.values():
        assert len(set(names)) == len(names)


def test_a_model_that_takes_too_long_is_tried_by_its_shapes_or_given_up(monkeypatch):
    def too_slow(library, name, export, by_shapes):
        if name == "large" and by_shapes:
            return {"outcome": "works"}
        if name == "broken":
            raise ZeroDivisionError("division\nby zero")
        raise nightly.TooSlow

    monkeypatch.setattr(nightly, "trial", too_slow)
    outcomes = [
        nightly.attempt("timm", name, "")["outcome"] for name in ("large", "slow", "broken")
    ]
    assert outcomes == [
        "works",
        "not run: takes more than 60 seconds",
        "broken: ZeroDivisionError: division by zero",
    ]


def test_the_table_and_the_summary_show_every_model():
    models = [
        trial.trial("pytorchcv", "resnet20_cifar10") | {"exported": "onnx"},
        trial.trial("pytorchcv", "octresnet10_ad2"),
        {"library": "timm", "model": "slow", "outcome": "not run: takes more than 60 seconds"},
    ]
    lines = table.render(models).splitlines()
    assert [line for line in lines if line.startswith("| `")] == [
        "| `resnet20_cifar10` | 32x32 | 21 | 19 | 2 of 1x1 | 0.27, 0.04, 0.03 M "
        "| works; as onnx too |",
        "| `octresnet10_ad2` | - | 13 | 0 | 12 OctConv, 1 of another size | 5.42 M "
        "| nothing to replace |",
        "| `slow` | - | - | - | - | - | not run: takes more than 60 seconds |",
    ]
    figures = nightly.summary(models)
    assert figures["not run"] == {"slow": "not run: takes more than 60 seconds"}
    assert (figures["works"], figures["nothing to replace"], figures["models"]) == (1, 1, 3)
    assert figures["kept"] == {"OctConv": 12, "of 1x1": 2, "of another size": 1}
