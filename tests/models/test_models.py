"""get_model and list_models: names, structure, parameters."""

import re
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import nn

from bsconv.pytorch import get_model, list_models
from bsconv.pytorch.models import ModelName, parse_name
from bsconv.pytorch.models._names import LEAST_WIDTHS


@pytest.mark.parametrize(
    ("architecture", "side"),
    [(name, 32) for name in [*list_models("cifar_resnet20*"), "resnet10_bsconvu"]]
    + [(name, 48) for name in list_models("*mobilenet*_w1d4*")],
)
def test_networks_map_images_to_logits_and_train(architecture, side):
    model = get_model(architecture, 7)
    logits = model(torch.rand(2, 3, side, side))
    assert logits.shape == (2, 7)
    (logits.sum() + model.reg_loss(alpha=0.1)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_dense_convolutions_start_kaiming_uniform_and_the_classifier_xavier():
    model = get_model("cifar_resnet20", 10)
    conv = model.backbone.stage3.unit2.conv1.conv
    bound = (6 / (64 * 9)) ** 0.5
    assert 0.97 * bound < conv.weight.abs().max() <= bound
    assert model.classifier.conv.bias.abs().max() == 0


@pytest.mark.parametrize(("family", "least"), LEAST_WIDTHS.items())
def test_the_narrowest_mobilenets_have_a_channel_everywhere(family, least):
    for style in ("", "cifar_"):
        model = get_model(f"{style}{family}_w{least.numerator}d{least.denominator}", 2)
        assert min(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)) >= 1
        assert model.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 2)
    with pytest.raises(ValueError, match=f"leaves a layer without.*needs at least {least}"):
        get_model(f"{family}_w1d{least.denominator + 1}", 2)


@pytest.mark.parametrize(
    ("architecture", "layer", "channels"),
    [
        ("cifar_mobilenetv2_w1d2", "final_conv.conv", 1280),  # the last one never shrinks
        ("cifar_mobilenetv2_w3d2", "final_conv.conv", 1920),
        ("mobilenetv3_small_w2", "final_conv1.conv", 1152),
        ("cifar_mobilenetv1_w1d2", "stage5.unit2.conv_pw.conv", 512),  # V1 has none
        ("cifar_mobilenetv3_large_w7d20", "init_conv.conv", 16 * 7 // 20),
        ("cifar_mobilenetv3_large_w7d20", "stage5.unit3.conv1.conv", 960 * 7 // 20),
        ("mobilenetv1_w1d3", "stage4.unit1.conv_pw.conv", 170),
    ],
)
def test_widths_are_exact_fractions(architecture, layer, channels):
    with torch.device("meta"):
        backbone = get_model(architecture, 2).backbone
    assert backbone.get_submodule(layer).out_channels == channels


def test_the_list_can_be_filtered_and_every_name_in_it_is_read_back():
    names = list_models()
    assert names == sorted(set(names))
    assert len(names) >= 242
    for pattern, start in (("cifar_wrn*_bsconvs_*", "cifar_wrn"), ("cifar_*_bsconvs_*", "cifar_")):
        chosen = [name for name in names if name.startswith(start) and "_bsconvs_" in name]
        assert list_models(pattern) == chosen
    assert list_models("CIFAR_resnet20_bsconvu") == ["cifar_resnet20_bsconvu"]
    assert list_models("nothing*") == []
    assert [str(parse_name(name)) for name in names] == names


def test_a_parsed_name_tells_its_parts_and_its_dense_network():
    name = parse_name("CIFAR_wrn16_4_BSConvS_P2d8")  # case does not matter
    assert name == ModelName("wrn", True, 16, Fraction(4), "s", Fraction(1, 4))
    assert str(name) == "cifar_wrn16_4_bsconvs_p1d4"
    assert str(name.dense) == "cifar_wrn16_4"
    assert str(replace(name.dense, variant="u")) == "cifar_wrn16_4_bsconvu"
    assert not name.is_mobilenet
    name = parse_name("mobilenetv3_small_w6d8_bsconvs_p1d6")
    assert name.is_mobilenet
    assert name.dense == parse_name("mobilenetv3_small_w3d4")
    assert str(parse_name("resnet18_bsconvs_p1d1")) == "resnet18_bsconvs_p1"


FRACTION = "while '3d4' or '1' would be one"
NEEDS_WIDTH = "needs a width multiplier such as _w1 or _w3d4, and nothing else"
UNKNOWN = "is not an architecture of this package"
NO_NAMES = {
    "cifar_resnet21": "has depth 21, while cifar_resnet comes with 20, 56, 110, 302, 602",
    "cifar_resnet20_bsconv": UNKNOWN,
    "cifar_resnet20_bsconvs_p1d0": f"has the fraction '1d0', {FRACTION}",
    "cifar_resnet20_bsconvs_p5d4": "has p = 5/4, while p is a share of channels, at most 1",
    "cifar_resnet20_4": "takes no width, as in cifar_wrn16_4",
    "cifar_wrn16": "needs a width, as in cifar_wrn16_4",
    "cifar_wrn16_0": UNKNOWN,
    "wrn16_4": f"{UNKNOWN}: wrn comes as cifar_wrn",
    "resnet": "has no depth, while resnet comes with 10, 18, 26, 34, 68, 102",
    "cifar_resnet20_bsconvs_p1d0d2": f"has the fraction '1d0d2', {FRACTION}",
    "mobilenetv1": NEEDS_WIDTH,
    "mobilenetv120_w1": NEEDS_WIDTH,
    "mobilenetv1_w1_bsconvs_p1d6": "has the variant _bsconvs_p1d6, while mobilenetv1 takes "
    "_bsconvu only",
    "mobilenetv2_w1_bsconvs_p1d4": "has the variant _bsconvs_p1d4, while mobilenetv2 takes "
    "_bsconvs_p1d6 only",
    "mobilenetv3_small_w1d5": "has width 1/5, which leaves a layer without channels: "
    "mobilenetv3_small needs at least 1/4",
    "": UNKNOWN,
}
NEAREST = {
    "cifar_resnet20_BSConvS": "cifar_resnet20_bsconvs_p1d8 or cifar_resnet20_bsconvs_p1d6 or "
    "cifar_resnet20_bsconvs_p1d4",
    "wrn16_4": "cifar_wrn16_4",
    "mobilenetv1": "mobilenetv1_w1 or mobilenetv1_w3d4 or mobilenetv1_w1d4",
    "mobilenetv3_w1": "mobilenetv3_small_w1 or mobilenetv3_large_w1 or mobilenetv3_small_w1d4",
    "vgg16": "",
}


@pytest.mark.parametrize("name", NO_NAMES)
def test_an_unknown_name_is_explained(name):
    with pytest.raises(ValueError, match=f"^{re.escape(f'{name!r} {NO_NAMES[name]}')}, "):
        get_model(name, 10)


@pytest.mark.parametrize("name", NEAREST)
def test_names_that_are_alike_are_named(name):
    near = NEAREST[name]
    hint = f"did you mean {near}?" if near else "list_models() has them all"
    with pytest.raises(ValueError, match=f"^'{name}' .*, {re.escape(hint)}$"):
        get_model(name, 10)


def test_the_least_number_of_classes_and_the_largest_share():
    model = get_model("cifar_resnet20_bsconvs_p1d1", 1)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 1)
    layer = model.get_submodule("backbone.stage2.unit2.conv1.conv")
    assert layer.pw1.out_channels == layer.in_channels


def test_default_and_published_are_the_same_start():
    def weights(init: str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        return list(get_model("cifar_resnet20_bsconvu", 10, init=init).parameters())

    torch.testing.assert_close(weights("default"), weights("published"), rtol=0, atol=0)
