"""Replacers on a handful of other people's models; `make nightly` tries some hundreds."""

import pytest

from nightly import test_foreign_models as foreign

for library in foreign.RULES:
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
    ("pytorchcv", "octresnet10_ad2", 0, {"OctConv": 12, "of another size": 1}),
    ("timm", "nf_regnet_b0", 0, {"ScaledStdConv2d": 54, "of 1x1": 32}),
]


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize(("library", "model", "replaced", "kept"), MODELS)
def test_a_model_works_as_bsconv(library, model, replaced, kept):
    found = foreign.trial(library, model)
    assert found["outcome"] == ("works" if replaced else "nothing to replace")
    assert (found["replaced"], found["kept"]) == (replaced, kept)
    dense, *smaller = found["parameters"]
    assert not replaced or max(smaller) < dense


def test_a_large_model_is_tried_by_its_shapes() -> None:
    found = foreign.trial("pytorchcv", "resnet20_cifar10", by_shapes=True)
    assert found["outcome"] == "works, by shapes"


@pytest.mark.slow
@pytest.mark.parametrize("format", foreign.FORMATS)
def test_a_model_is_exported_too(format, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert foreign.trial("timm", "test_resnet", format)["outcome"] == f"works; as {format} too"
