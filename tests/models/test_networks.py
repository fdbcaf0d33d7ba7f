"""Networks compute what the papers define, written here as functions of their weights.

How many channels they have, the tests of the profiler compare with the published tables.
"""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bsconv.pytorch import get_model
from bsconv.pytorch.models._blocks import ImageClassifier
from helpers.trained import trained

State = dict[str, Tensor]


def conv(state: State, name: str, images: Tensor, stride: int = 1) -> Tensor:
    """Padded to keep the size, grouped as the weight says; BSConv by its parts."""
    if f"{name}.dw.weight" in state:
        for part in ("pw", "pw1", "bn1", "pw2", "bn2"):
            if f"{name}.{part}.weight" in state:
                images = (norm if "bn" in part else conv)(state, f"{name}.{part}", images)
        return conv(state, f"{name}.dw", images, stride)
    weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
    groups = images.shape[1] // weight.shape[1]
    return F.conv2d(images, weight, bias, stride, padding=weight.shape[2] // 2, groups=groups)


def norm(state: State, name: str, images: Tensor) -> Tensor:
    names = ("running_mean", "running_var", "weight", "bias")
    mean, variance, weight, bias = (state[f"{name}.{part}"][:, None, None] for part in names)
    return (images - mean) / (variance + 1e-5).sqrt() * weight + bias


def normed(state: State, name: str, images: Tensor, stride: int = 1) -> Tensor:
    return norm(state, f"{name}.bn", conv(state, f"{name}.conv", images, stride))


def blocks(model: ImageClassifier, strides: list[int]) -> Iterator[tuple[str, int, int]]:
    """Name, number of the stage and stride of each block: the first of a stage strides."""
    for stage, stride in enumerate(strides, start=1):
        for unit, _ in model.backbone.get_submodule(f"stage{stage}").named_children():
            yield f"backbone.stage{stage}.{unit}", stage, stride if unit == "unit1" else 1


def logits(state: State, images: Tensor) -> Tensor:
    return conv(state, "classifier.conv", images.mean((2, 3), keepdim=True)).flatten(1)


def like_trained(name: str) -> ImageClassifier:
    return trained(get_model(name, 10).double()).eval()


def assert_computes(model: ImageClassifier, images: Tensor, expected: Tensor) -> None:
    assert expected.std() > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected)


# --- He et al., Deep residual learning, 2016; Identity mappings, 2016; Wide ResNets, 2016 ---------


@pytest.mark.parametrize("variant", ["", "_bsconvu", "_bsconvs_p1d4"])
@pytest.mark.parametrize("base", ["cifar_resnet20", "resnet10", "cifar_resnet56"])
@pytest.mark.parametrize("is_preactivated", [False, True])
def test_residual_networks(is_preactivated: bool, base: str, variant: str) -> None:
    if is_preactivated:
        base = base.replace("resnet56", "wrn16_2").replace("resnet", "preresnet")
    model, images = like_trained(base + variant), torch.rand(2, 3, 36, 36).double()
    state, is_cifar = model.state_dict(), base.startswith("cifar")
    x, stem = norm(state, "backbone.data_bn", images), "backbone.init_unit.conv"
    if is_cifar:
        x = conv(state, f"{stem}.conv", x) if is_preactivated else normed(state, stem, x).relu()
    else:
        x = F.max_pool2d(normed(state, stem, x, 2).relu(), 3, 2, 1)
    block = preactivated_block if is_preactivated else residual_block
    for name, _, stride in blocks(model, [1, 2, 2] if is_cifar else [1, 2, 2, 2]):
        x = block(state, name, x, stride)
    if is_preactivated:
        x = norm(state, "backbone.final_activation.bn", x).relu()
    assert_computes(model, images, logits(state, x))


def residual_block(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    rest = normed(state, f"{name}.conv1", x, stride).relu()
    rest = normed(state, f"{name}.conv2", rest)
    if f"{name}.projection.conv.weight" in state:
        x = normed(state, f"{name}.projection", x, stride)
    return (x + rest).relu()


def preactivated_block(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    activated = norm(state, f"{name}.bn", x).relu()
    rest = normed(state, f"{name}.conv1", activated, stride).relu()
    rest = conv(state, f"{name}.conv2.conv", rest)
    if f"{name}.projection.conv.weight" in state:
        x = conv(state, f"{name}.projection.conv", activated, stride)
    return x + rest


# --- Howard et al., MobileNets, 2017 --------------------------------------------------------------


@pytest.mark.parametrize("variant", ["", "_bsconvu"])
@pytest.mark.parametrize(("style", "strides"), [("", [1, 2, 2, 2, 2]), ("cifar_", [1, 1, 2, 2, 2])])
def test_mobilenet_v1(style: str, strides: list[int], variant: str) -> None:
    model = like_trained(f"{style}mobilenetv1_w1d4{variant}")
    state, images = model.state_dict(), torch.rand(2, 3, 48, 48).double()
    x = norm(state, "backbone.data_bn", images)
    x = normed(state, "backbone.init_conv", x, 1 if style else 2).relu()
    for name, _, stride in blocks(model, strides):
        if variant:
            x = norm(state, f"{name}.1", conv(state, f"{name}.0", x, stride)).relu()
        else:
            x = normed(state, f"{name}.conv_dw", x, stride).relu()
            x = normed(state, f"{name}.conv_pw", x).relu()
    assert_computes(model, images, logits(state, x))


# --- Sandler et al., MobileNetV2, 2018; Howard et al., Searching for MobileNetV3, 2019 ------------

# strides of the stages, for ImageNet and for CIFAR, and from which on h-swish takes ReLU's place
BOTTLENECKS = [
    ("mobilenetv2", [1, 2, 2, 2, 2], [1, 1, 2, 2, 2], 9),
    ("mobilenetv3_small", [2, 2, 2, 2], [1, 2, 2, 2], 3),
    ("mobilenetv3_large", [1, 2, 2, 2, 2], [1, 1, 2, 2, 2], 4),
]


def squeezed(state: State, name: str, x: Tensor) -> Tensor:
    scale = conv(state, f"{name}.conv1", x.mean((2, 3), keepdim=True)).relu()
    return x * F.hardsigmoid(conv(state, f"{name}.conv2", scale))


@pytest.mark.parametrize("variant", ["", "_bsconvs_p1d6"])
@pytest.mark.parametrize("style", ["", "cifar_"])
@pytest.mark.parametrize(("family", "strides", "cifar_strides", "swish_from"), BOTTLENECKS)
def test_mobilenets_of_bottlenecks(family, strides, cifar_strides, swish_from, style, variant):
    model = like_trained(f"{style}{family}_w7d20{variant}")
    state, images = model.state_dict(), torch.rand(2, 3, 48, 48).double() * 3
    relu, outer = (F.relu6, F.relu6) if family == "mobilenetv2" else (F.relu, F.hardswish)
    x = norm(state, "backbone.data_bn", images)
    x = outer(normed(state, "backbone.init_conv", x, 1 if style else 2))
    for name, stage, stride in blocks(model, cifar_strides if style else strides):
        activation = F.hardswish if stage >= swish_from else relu
        y = activation(normed(state, f"{name}.conv1", x))
        y = activation(normed(state, f"{name}.conv2", y, stride))
        if f"{name}.se_unit.conv1.weight" in state:
            y = squeezed(state, f"{name}.se_unit", y)
        y = normed(state, f"{name}.conv3", y)
        x = x + y if x.shape == y.shape else y
    last = "final_conv" if family == "mobilenetv2" else "final_conv1"
    x = outer(normed(state, f"backbone.{last}", x))
    if family == "mobilenetv3_small":
        x = squeezed(state, "backbone.final_se", x)
    assert_computes(model, images, logits(state, x))
