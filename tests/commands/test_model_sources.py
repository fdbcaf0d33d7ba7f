"""Models by name: this package's, torchvision's, pytorchcv's, and their BSConv forms."""

import sys
from typing import Any

import pytest
import torch
from torch import nn

from bsconv.experiments import model_sources
from bsconv.experiments.model_sources import build_model
from bsconv.pytorch import BSConvS, BSConvU

pytestmark = pytest.mark.usefixtures("no_network")


def count(model: nn.Module, *types: type[nn.Module]) -> int:
    return sum(isinstance(module, types) for module in model.modules())


def output_shape(model: nn.Module, size: int, *, training: bool) -> list[int]:
    with torch.no_grad():
        output = model.train(training)(torch.zeros(2, 3, size, size))
    assert isinstance(output, torch.Tensor)
    return list(output.shape)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("cifar_resnet20", 32),
        ("cifar_resnet20_bsconvu", 32),
        ("torchvision:resnet18", 32),
        ("torchvision:squeezenet1_1", 32),
        ("torchvision:googlenet", 96),  # these two would have outputs of their own while training
        ("torchvision:inception_v3", 107),
        ("torchvision:regnet_y_400mf", 32),
        ("pytorchcv:resnet18", 224),
        ("pytorchcv:resnet20_cifar10", 32),
        ("pytorchcv:resnet10_cub", 224),
        ("timm:resnet10t", 32),
    ],
)
def test_one_logit_for_each_class(name: str, size: int) -> None:
    model = build_model(name, 7)
    for training in (True, False):
        assert output_shape(model, size, training=training) == [2, 7]
    if name == "pytorchcv:resnet20_cifar10":
        assert model.output.out_features == model.num_classes == 7


@pytest.mark.parametrize(
    "name", ["cifar_resnet20", "torchvision:resnet18", "pytorchcv:resnet20_cifar10"]
)
def test_replacement(name: str) -> None:
    assert count(build_model(name, 10), BSConvU, BSConvS) == 0
    as_u, as_s = build_model(name, 10, bsconv="u"), build_model(name, 10, bsconv="s")
    assert count(as_u, BSConvU) > 10
    assert count(as_s, BSConvS) > 10
    assert count(as_u, BSConvS) == count(as_s, BSConvU) == 0
    assert as_s.reg_loss(alpha=0.1).item() > 0
    assert output_shape(as_s, 32, training=True) == [2, 10]


def test_options_reach_the_replacers() -> None:
    half = build_model("cifar_resnet20", 10, bsconv="s", p=0.5, with_bn=True)
    layers = [module for module in half.modules() if isinstance(module, BSConvS)]
    assert layers[-1].pw1.out_channels == layers[-1].in_channels // 2
    plain = build_model("cifar_resnet20", 10)
    assert count(half, nn.BatchNorm2d) == count(plain, nn.BatchNorm2d) + 2 * len(layers)
    with_bn = build_model("cifar_resnet20", 10, bsconv="u", with_bn=True)
    assert count(with_bn, nn.BatchNorm2d) - count(plain, nn.BatchNorm2d) == count(with_bn, BSConvU)
    projected = build_model("pytorchcv:resnet20_cifar10", 10, bsconv="s", init="project")
    assert projected.reg_loss(alpha=1) < 1e-3 < half.reg_loss(alpha=1)  # a basis of an SVD


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nosuch:net", {}, "unknown source 'nosuch' in 'nosuch:net': .* torchvision:NAME, "),
        (":resnet18", {}, "unknown source ''"),
        ("torchvision:fcn_resnet50", {}, "no classification model 'fcn_resnet50', did you mean"),
        ("timm:resnet1", {}, "timm has no classification model 'resnet1', did you mean timm:"),
        ("torchvision:", {}, "no classification model '', did you mean torchvision:"),
        ("pytorchcv:resnet20_cifar11", {}, "did you mean .*pytorchcv:resnet20_cifar10"),
        ("pytorchcv:unet_cityscapes", {}, "no classification model 'unet_cityscapes'"),
        ("pytorchcv:ntsnet_cub", {}, "no classification model 'ntsnet_cub'"),
        ("pytorchcv:get_model", {}, "no classification model 'get_model'"),
        ("vgg16", {}, "torchvision has one: torchvision:vgg16"),
        ("torchvision:resnet18", {"num_classes": 0}, "num_classes needs 1 to 10,000,000, got 0"),
        ("torchvision:resnet18", {"bsconv": "x"}, "'u', 's' or None, got bsconv='x'"),
        ("torchvision:resnet18", {"bsconv": "u", "init": "magic"}, "got init='magic'"),
        ("cifar_resnet20_bsconvs_p1d4", {"bsconv": "u"}, "or replace in cifar_resnet20$"),
    ],
)
def test_wrong_arguments(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build_model(name, **{"num_classes": 10, **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["torchvision", "pytorchcv"])
def test_a_source_that_is_not_installed(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == source]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, source, None)
    model_sources._pytorchcv_names.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=source):
        build_model(f"{source}:resnet18", 10)
    with pytest.raises(ValueError, match="not an architecture of this package"):
        build_model("vgg16", 10)
    assert count(build_model("cifar_resnet20", 10), nn.Conv2d) > 10
