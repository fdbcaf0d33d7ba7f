"""get_model and list_models: names, structure, parameters."""

from fractions import Fraction

import pytest
import torch
from torch import nn

from bsconv.pytorch import BSConvS, BSConvU, get_model, list_models
from bsconv.pytorch.models._names import parse_fraction, parse_name


def parameters(architecture: str, num_classes: int = 100) -> int:
    return sum(p.numel() for p in get_model(architecture, num_classes).parameters())


@pytest.mark.parametrize(
    ("architecture", "millions"),  # of the published tables, for CIFAR-100
    [
        ("cifar_resnet20", 0.28),
        ("cifar_resnet56", 0.86),
        ("cifar_resnet110", 1.74),
        ("cifar_resnet20_bsconvu", 0.05),
        ("cifar_resnet56_bsconvu", 0.13),
        ("cifar_resnet110_bsconvu", 0.24),
        ("cifar_resnet20_bsconvs_p1d4", 0.03),
        ("cifar_resnet56_bsconvs_p1d4", 0.08),
        ("cifar_resnet110_bsconvs_p1d4", 0.16),
    ],
)
def test_parameter_counts_are_the_published_ones(architecture, millions):
    assert f"{parameters(architecture) / 1e6:.2f}" == f"{millions:.2f}"


@pytest.mark.parametrize("architecture", [*list_models("cifar_resnet20*"), "resnet10_bsconvu"])
def test_networks_map_images_to_logits_and_train(architecture):
    model = get_model(architecture, 7)
    logits = model(torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 7)
    (logits.sum() + model.reg_loss(alpha=0.1)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    "architecture", ["cifar_preresnet20", "cifar_wrn16_2_bsconvs_p1d4", "preresnet10"]
)
def test_preactivated_networks_end_with_an_activation(architecture):
    model = get_model(architecture, 5)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    assert hasattr(model.backbone, "final_activation")


def test_variants_replace_the_three_by_three_convolutions_only():
    for layer_class, architecture in (
        (BSConvU, "cifar_resnet20_bsconvu"),
        (BSConvS, "cifar_resnet20_bsconvs_p1d2"),
    ):
        dense, model = get_model("cifar_resnet20", 10), get_model(architecture, 10)
        for name, module in dense.named_modules():
            if type(module) is nn.Conv2d:
                other = model.get_submodule(name)
                expected = layer_class if module.kernel_size == (3, 3) else nn.Conv2d
                assert type(other) is expected
                assert (other.stride, other.padding) == (module.stride, module.padding)
    assert model.backbone.stage3.unit2.conv1.conv.pw1.out_channels == 32
    assert hasattr(model.backbone.stage3.unit2.conv1.conv, "bn1")


def test_dense_convolutions_start_kaiming_uniform_and_the_classifier_xavier():
    model = get_model("cifar_resnet20", 10)
    conv = model.backbone.stage3.unit2.conv1.conv
    bound = (6 / (64 * 9)) ** 0.5
    assert 0.97 * bound < conv.weight.abs().max() <= bound
    assert model.classifier.conv.bias.abs().max() == 0


def test_case_does_not_matter():
    assert parse_name("CIFAR_ResNet20_BSConvS_P3D4") == parse_name("cifar_resnet20_bsconvs_p3d4")
    assert parse_name("cifar_resnet20_bsconvs_p3d4").p == Fraction(3, 4)
    assert parse_fraction("1") == 1


def test_the_list_can_be_filtered_and_every_name_in_it_is_read_back():
    names = list_models()
    assert names == sorted(set(names))
    for depth in (20, 56, 110):
        for variant in ("", "_bsconvu", "_bsconvs_p1d4"):
            assert f"cifar_resnet{depth}{variant}" in names
    assert list_models("cifar_resnet56_*") == [
        name for name in names if name.startswith("cifar_resnet56_")
    ]
    assert list_models("CIFAR_resnet20_bsconvu") == ["cifar_resnet20_bsconvu"]
    assert list_models("nothing*") == []
    for name in names:
        parse_name(name)


@pytest.mark.parametrize(
    ("architecture", "problem"),
    [
        ("cifar_resnet21", "'cifar_resnet21' has depth 21.*20, 56.*did you mean cifar_resnet20"),
        ("cifar_resnet20_bsconv", "no architecture.*did you mean cifar_resnet20_bsconvu"),
        ("cifar_resnet20_bsconvs", "no architecture.*did you mean.*cifar_resnet20_bsconvs_p1d4"),
        ("cifar_resnet20_bsconvs_p1d0", "has the fraction '1d0', while '3d4'"),
        ("cifar_resnet20_bsconvs_p0d4", "has the fraction '0d4'"),
        ("cifar_resnet20_bsconvs_px", "has the fraction 'x'"),
        ("cifar_resnet20_bsconvs_p5d4", "has p = 5/4"),
        ("cifar_resnet20_4", "takes no width"),
        ("cifar_wrn16", "needs a width"),
        ("cifar_wrn16_0", "has width 0"),
        ("", "no architecture"),
        ("vgg16", r"no architecture.*list_models\(\) has them all"),
    ],
)
def test_an_unknown_name_is_explained(architecture, problem):
    with pytest.raises(ValueError, match=problem):
        get_model(architecture, 10)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="got num_classes=0"):
        get_model("cifar_resnet20", 0)
    with pytest.raises(ValueError, match="no weights pretrained='cifar10' for 'cifar_resnet20'"):
        get_model("cifar_resnet20", 10, pretrained="cifar10")
