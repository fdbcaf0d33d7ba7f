"""MobileNets of any known library in BSConv form: what changes, and that all else stays."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from bsconv.pytorch import BSConvS_Replacer, BSConvU, MobileNetModifier, get_model, modify_mobilenet
from bsconv.pytorch.models.mobilenet import DepthwiseSeparableBlock
from bsconv.pytorch.regularization import OrthonormalConv2d
from helpers.exact_errors import raises_exactly
from helpers.model_snapshots import assert_unchanged, snapshot
from helpers.trained import trained

# ------------------------------------------------------------------------ models, filled at random


def randomized(model: nn.Module) -> nn.Module:
    """In eval mode, with BatchNorms that do something and weights that let signals through."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return trained(model).eval()


def build(library: str, name: str) -> nn.Module:
    if library == "bsconv":
        return get_model(name, num_classes=10)
    if library == "torchvision":
        return getattr(pytest.importorskip("torchvision").models, name)()
    if library == "timm":
        return pytest.importorskip("timm").create_model(name, pretrained=False)
    model = pytest.importorskip("pytorchcv.model_provider").get_model(name, pretrained=False)
    model.features.final_pool = nn.AdaptiveAvgPool2d(1)  # the original takes 224x224 only
    return model


def outputs(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)))


def small(version: int) -> nn.Module:
    return randomized(get_model(f"cifar_mobilenetv{version}_w1d4", 10))


def modified(model: nn.Module, init: str = "project"):
    """The modified model, and the report."""
    modifier = MobileNetModifier(init=init)
    return modifier.apply(model), modifier.report


# --------------------------------------------- MobileNetV2, V3, EfficientNet: the penalty, no more

OWN = r"backbone\.stage\d\.unit\d\.conv3\.conv"
# in a Sequential of convolution and BatchNorm: others have an activation
TORCHVISION_BLOCKS = r"features\.\d+\.(\d+\.)?block\.\d\.0"
TIMM = r"blocks\.0\.0\.conv_pw|blocks\.\d\.\d\.conv_pwl"  # all the first blocks lack the expansion
PYTORCHCV = r"features\.stage\d\.unit\d+\."
BOTTLENECKS = [  # a model, the number of its projections, and how they are called
    ("torchvision", "mobilenet_v2", 17, r"features\.\d+\.conv\.[12]"),
    ("torchvision", "mobilenet_v3_small", 11, TORCHVISION_BLOCKS),
    ("torchvision", "mobilenet_v3_large", 15, TORCHVISION_BLOCKS),
    ("torchvision", "efficientnet_b0", 16, TORCHVISION_BLOCKS),
    ("pytorchcv", "mobilenetv2_w1", 17, PYTORCHCV + r"conv3\.conv"),
    ("pytorchcv", "mobilenetv3_small_w1", 11, PYTORCHCV + r"conv2\.conv"),
    ("pytorchcv", "mobilenetv3_large_w1", 15, PYTORCHCV + r"conv2\.conv"),
    ("pytorchcv", "efficientnet_b0", 16, PYTORCHCV + r"(pw_conv|conv3)\.conv"),
    ("timm", "mobilenetv2_100", 17, TIMM),
    ("timm", "mobilenetv3_large_100", 15, TIMM),
    ("timm", "efficientnet_b0", 16, TIMM),
]
COUNTS = {"mobilenetv2": 17, "mobilenetv3_small": 11, "mobilenetv3_large": 15}
BOTTLENECKS += [("bsconv", f"{name}_w1", count, OWN) for name, count in COUNTS.items()]
BOTTLENECKS += [("bsconv", f"cifar_{name}_w1d4", count, OWN) for name, count in COUNTS.items()]


@pytest.mark.parametrize(("library", "name", "count", "pattern"), BOTTLENECKS)
def test_bottlenecks_keep_everything_and_gain_the_penalty(library, name, count, pattern):
    model = randomized(build(library, name))
    convs = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    wanted = [name for name in convs if re.fullmatch(pattern, name)]
    if pattern is TORCHVISION_BLOCKS:
        wanted = [name for name in wanted if len(model.get_submodule(name[:-2])) == 2]
    assert len(wanted) == count
    before, keys, text = outputs(model), list(model.state_dict()), repr(model)
    parameters = list(model.parameters())

    same, report = modified(model)

    assert same is model
    assert torch.equal(outputs(model), before)
    assert list(model.state_dict()) == keys
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]
    assert [block.projection for block in report.blocks] == wanted
    assert {block.action for block in report.blocks} == {"penalised"}
    assert repr(model).count("OrthonormalConv2d(") == count
    assert repr(model).replace("OrthonormalConv2d(", "Conv2d(") == text

    matrices = [convs[name].weight.detach().numpy().astype(float)[:, :, 0, 0] for name in wanted]
    distances = [np.linalg.norm(w @ w.T - np.eye(len(w))) for w in matrices]
    penalty = model.reg_loss(alpha=0.3)
    torch.testing.assert_close(penalty.item(), 0.3 * sum(distances), rtol=1e-5, atol=0)

    penalty.backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {f"{name}.weight" for name in wanted}
    assert all(convs[name].weight.grad.any() for name in wanted)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        *((f"cifar_mobilenetv1_{width}", "_bsconvu") for width in ("w1d4", "w1")),
        *((f"cifar_{family}_w1d2", "_bsconvs_p1d6") for family in COUNTS),
    ],
)
def test_own_networks_become_their_named_bsconv_variants(name, suffix):
    model = modify_mobilenet(get_model(name, 10), init="default")
    named = get_model(name + suffix, 10)
    assert repr(model) == repr(named)
    named.load_state_dict(model.state_dict())
    assert torch.equal(model.reg_loss(alpha=0.1), named.reg_loss(alpha=0.1))
    assert {block.action for block in MobileNetModifier().plan(named).blocks} == {"done"}


def test_projections_stay_the_same_objects_with_their_hooks():
    model, seen = small(2), []
    conv = model.backbone.stage2.unit1.conv3.conv
    handle = conv.register_forward_hook(lambda *_: seen.append("forward"))
    conv.register_load_state_dict_pre_hook(lambda *_: seen.append("load"))
    modify_mobilenet(model)
    assert model.backbone.stage2.unit1.conv3.conv is conv
    outputs(model)
    model.load_state_dict(model.state_dict())
    handle.remove()
    outputs(model)
    assert seen == ["forward", "load"]


# -------------------------------------------------------------- MobileNetV1: blocks become BSConv-U


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("pytorchcv", "mobilenet_w1"), ("pytorchcv", "mobilenet_wd4"), ("timm", "mobilenetv1_100"),
        ("bsconv", "mobilenetv1_w1d2"), ("bsconv", "cifar_mobilenetv1_w1d4"),
    ],
)  # fmt: skip
def test_separable_blocks_become_blueprint_blocks(library, name):
    model = randomized(build(library, name))
    before = outputs(model)
    norms_before = set(norms(model))
    strided = [m.stride for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    model, report = modified(model)

    layers = [module for module in model.modules() if isinstance(module, BSConvU)]
    assert len(layers) == 13 == len(report.changed)
    assert [layer.stride for layer in layers] == strided
    assert all(layer.dw.bias is None and layer.kernel_size == (3, 3) for layer in layers)
    assert not any(layer.training for layer in layers)
    after = outputs(model)
    assert after.shape == before.shape
    assert after.isfinite().all()
    assert norms_before.issuperset(norms(model))
    assert len(norms(model)) == len(norms_before) - 13
    assert sum(p.numel() for p in model.parameters()) == report.parameters_after
    for block in report.blocks:
        assert block.kind.startswith("MobileNetV1 block (")
        assert f"keeps {block.share_kept:.1%}" in block.description
        assert 0 < block.share_kept < 1
    assert model.reg_loss() == 0


def norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def separable_block(library: str, **options) -> nn.Module:
    """6 to 8 channels, 5x5 (own: 3x3), stride 2; inner activations that pass everything."""
    if library == "bsconv":
        block: nn.Module = DepthwiseSeparableBlock(6, 8, 2)
    elif library == "pytorchcv":
        conv = pytest.importorskip("pytorchcv.models.common.conv")
        block = conv.DwsConvBlock(6, 8, 5, 2, 2, **options)
    else:
        blocks = pytest.importorskip("timm.models._efficientnet_blocks")
        block = blocks.DepthwiseSeparableConv(6, 8, 5, 2, noskip=True, pw_act=True)
    block = randomized(block).double()
    for inner in norms(block)[:-1]:
        inner.bias.data.fill_(100)
    return block


def depthwise(block: nn.Module) -> nn.Conv2d:
    return next(m for m in block.modules() if isinstance(m, nn.Conv2d) and m.groups > 1)


@pytest.mark.parametrize(
    ("library", "options"),
    [
        ("bsconv", {}), ("timm", {}), ("pytorchcv", {}), ("pytorchcv", {"bias": True}),
        ("pytorchcv", {"dilation": 2}),
        ("pytorchcv", {"dw_normalization": None, "dw_activation": None}),
        ("pytorchcv", {"dw_normalization": None, "dw_activation": None, "bias": True}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tracked", [True, False])
def test_a_block_that_is_a_blueprint_map_computes_the_same(library, options, tracked):
    block = separable_block(library, **options)
    if not tracked:  # the last BatchNorm takes the constant before it off by itself
        norm = norms(block)[-1]
        norm.running_mean = norm.running_var = None
    with torch.no_grad():  # all depthwise kernels alike but for a factor
        kernel = depthwise(block).weight
        kernel.copy_(kernel[:1] * torch.randn(6, 1, 1, 1, dtype=kernel.dtype))
        for module in block.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                module.bias.normal_()
    x = torch.randn(2, 6, 11, 9, dtype=torch.float64)
    with torch.no_grad():
        expected = block(x)
        model, report = modified(nn.Sequential(block))
        assert isinstance(model[0][0], BSConvU)
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)  # the border too
    assert expected.std() > 0.1
    torch.testing.assert_close(report.blocks[0].share_kept, 1.0)


def test_the_share_kept_is_what_singular_values_say():
    block = separable_block("pytorchcv")
    dw, pw = depthwise(block).weight.detach().numpy(), block.pw_conv.conv.weight.detach().numpy()
    norm = block.dw_conv.bn
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().numpy()
    dense = pw[:, :, 0, 0, None] * scale[:, None] * dw.reshape(6, 25)  # filters, channels, pixels
    singular = np.linalg.svd(dense, compute_uv=False)
    (plan,) = MobileNetModifier().plan(block).blocks
    expected = (singular[:, 0] ** 2).sum() / (singular**2).sum()
    torch.testing.assert_close(plan.share_kept, expected)

    layer = modify_mobilenet(block)[0]  # a block by itself is returned converted
    left = layer.to_conv2d().weight.detach().numpy().reshape(dense.shape) - dense
    torch.testing.assert_close(np.linalg.norm(left) / np.linalg.norm(dense), np.sqrt(1 - expected))


FRESH = {
    "its inner BatchNorm has no running statistics": (
        lambda block: setattr(block.dw_conv.bn, "running_mean", None)
    ),
    "its weights are not finite": lambda block: block.pw_conv.conv.weight.data.fill_(torch.nan),
    "it has GroupNorm in place of BatchNorm": (
        lambda block: setattr(block.pw_conv, "bn", nn.GroupNorm(2, 8).double())
    ),
    "the model is on the meta device": lambda block: block.to("meta"),
}


@pytest.mark.parametrize("reason", FRESH)
def test_what_cannot_be_projected_starts_fresh_and_says_so(reason):
    block = separable_block("pytorchcv")
    FRESH[reason](block)
    model, report = modified(nn.Sequential(block))
    (plan,) = report.blocks
    assert plan.description == f"becomes BSConv-U with fresh weights, since {reason}"
    assert plan.share_kept is None
    weight = model[0][0].pw.weight
    assert weight.is_meta or weight.isfinite().all()


@pytest.mark.parametrize(("init", "variance"), [("default", 1 / 3 / 256), ("matched", 1 / 256)])
def test_init_chooses_the_first_weights(init, variance):
    model, report = modified(get_model("cifar_mobilenetv1_w1d2", 10), init)
    assert repr(model) == repr(modify_mobilenet(get_model("cifar_mobilenetv1_w1d2", 10)))
    found = model.backbone.stage5.unit1[0].pw.weight.var().item()
    assert found == pytest.approx(variance, rel=0.05)
    assert report.blocks[0].share_kept is None
    assert report.blocks[0].description == "becomes BSConv-U with fresh weights"


@pytest.mark.parametrize("init", ["default", "project"])
def test_the_new_layers_take_over_how_the_old_were_kept(init):
    model = small(1).double().to(memory_format=torch.channels_last).train()
    unit = model.backbone.stage2.unit1
    unit.eval()
    unit.conv_dw.conv.weight.requires_grad_(False)
    norm, activation = unit.conv_pw.bn, unit.conv_pw.activation
    modify_mobilenet(model, init=init)
    layer, *tail = model.backbone.stage2.unit1
    assert tail == [norm, activation]
    assert layer.dw.weight.dtype == layer.pw.weight.dtype == torch.float64
    assert layer.dw.weight.is_contiguous(memory_format=torch.channels_last)
    assert (layer.dw.weight.requires_grad, layer.pw.weight.requires_grad) == (False, True)
    assert not any(m.training for m in model.backbone.stage2.unit1.modules())
    assert all(m.training for m in model.backbone.stage2.unit2.modules())
    assert model.training


def test_a_block_in_two_places_becomes_one_block_in_two_places():
    block = separable_block("bsconv")
    model, report = modified(nn.ModuleDict({"a": block, "b": nn.Sequential(block)}))
    assert isinstance(model["a"][0], BSConvU)
    assert model["a"] is model["b"][0]
    assert report.blocks[0].names == ("a", "b.0")
    assert "a, b.0" in str(report)


# ------------------------------------------------------------------------------ what is kept as is


@pytest.mark.parametrize(
    ("library", "name", "penalised", "kept"),
    [("torchvision", "efficientnet_v2_s", 30, 10), ("timm", "efficientnetv2_rw_t", 29, 8)],
)
def test_fused_blocks_are_kept_and_reported(library, name, penalised, kept):
    with torch.device("meta"):
        report = MobileNetModifier().plan(build(library, name))
    actions = [block.action for block in report.blocks]
    assert (actions.count("penalised"), actions.count("kept")) == (penalised, kept)
    assert report.blocks[0].kind.startswith("fused EfficientNet block")
    assert report.blocks[0].description == "kept: it has no depthwise Conv2d"
    assert f"{kept} are kept as they are" in report.summary


def test_blocks_of_another_build_and_subclasses_are_kept_where_layers_would_change():
    blocks = pytest.importorskip("timm.models._efficientnet_blocks")
    mobilenetv2 = pytest.importorskip("torchvision.models.mobilenetv2")
    excite = blocks.SqueezeExcite

    class Residual(mobilenetv2.InvertedResidual):
        pass

    class Separable(DepthwiseSeparableBlock):
        pass

    model = nn.Sequential(
        blocks.DepthwiseSeparableConv(8, 8, pw_act=True),
        blocks.DepthwiseSeparableConv(8, 8, pw_act=True, noskip=True, se_layer=excite),
        blocks.CondConvResidual(8, 8, num_experts=2),
        blocks.DepthwiseSeparableConv(8, 8, se_layer=excite),
        blocks.InvertedResidual(8, 8, drop_path_rate=0.5),
        Residual(8, 8, 1, 6),
        Separable(8, 8, 1),
    )
    report = MobileNetModifier().plan(model)
    assert [block.description for block in report.blocks] == [
        "kept: it adds its input, and has an activation before that",
        "kept: it is not depthwise, then pointwise, and its last Conv2d is not a linear projection",
        "kept: it has no depthwise Conv2d",
        "projection 3.conv_pw penalised, basis 8 x 8",
        "projection 4.conv_pwl penalised, basis 8 x 8",
        "projection 5.conv.2 penalised, basis 8 x 48",
        "kept: it may compute something other than its class",
    ]
    kinds = [block.kind for block in report.blocks]
    assert kinds[3] == kinds[4] == "MobileNetV2/V3/EfficientNet block (timm)"


# --------------------------------------------------------------------------------- twice, and plans


@pytest.mark.parametrize("version", [1, 2])
def test_a_plan_changes_nothing_and_says_what_apply_does_and_a_second_apply_nothing(version):
    model = small(version)
    before, state = snapshot(model), torch.get_rng_state()
    modifier = MobileNetModifier()
    plan = modifier.plan(model)
    assert_unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert modifier.report is None
    model = modifier.apply(model)
    assert modifier.report == plan

    before = snapshot(model)
    same, report = modified(model)
    assert same is model
    assert_unchanged(model, before)
    count = len(report.blocks)
    assert report.changed == ()
    assert report.summary.startswith(
        f"nothing left to do: of {count} known blocks {count} are BSConv already; "
    )
    for block in report.blocks:
        if version == 1:
            assert (block.kind, block.projection) == ("BSConv-U block", "")
            assert block.description == "is BSConv-U already"
        else:
            assert block.description == f"projection {block.projection} is penalised already"
            assert isinstance(model.get_submodule(block.projection), OrthonormalConv2d)


def test_the_report_is_a_table(capsys):
    plan = MobileNetModifier().plan(nn.Sequential(separable_block("bsconv"), small(2)))
    header, _, first, second, *_ = str(plan).splitlines()
    assert " ".join(header.split()) == "block recognised as what happens before after"
    assert re.fullmatch(
        r"0 +MobileNetV1 block \(bsconv\) +becomes BSConv-U, keeps \d\d\.\d% of the block's linear "
        r"map +130 +136",
        first,
    )
    name = "1.backbone.stage1.unit1"
    assert second.split()[:2] == [name, "MobileNetV2/V3"]
    assert f"projection {name}.conv3.conv penalised, basis 4 x 8" in second
    assert str(plan).endswith(plan.summary)

    for verbosity, count in enumerate((0, 1, 20)):
        modify_mobilenet(small(2), verbosity=verbosity)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == count
    assert lines[-1].startswith("of 17 known blocks 17 get the penalty on their projection; ")
    assert repr(MobileNetModifier()) == "MobileNetModifier(init='project', verbosity=0)"


# --------------------------------------------------------------------------------------- refusals


class Special(nn.Conv2d):
    pass


SPECIAL = Special(16, 16, 1)


class Unstarted(nn.parallel.DistributedDataParallel):
    def __init__(self) -> None:
        nn.Module.__init__(self)


UNIT2, UNIT3 = "0.backbone.stage4.unit2", "0.backbone.stage4.unit3"
PENALISED = "convolution '1.backbone.stage4.unit2.conv3.conv' can't be penalised:"
UNDOES = "parametrised (weight), which remove_parametrizations undoes"
SUBCLASS = "Special is a subclass of Conv2d and may compute something else"
HOOKS = "has hooks, which can't move into the BSConv-U that its block becomes: remove them first"
TIED = "which can't go on when it becomes BSConv-U: untie them first"
OWN_LOSS = (
    "Sequential has a reg_loss of its own, which the penalty of BSConv-S would hide: rename it, or "
    "change the model's children and call bsconv.pytorch.reg_loss(model, alpha)"
)
WRAPPED = (
    "change the layers before DistributedDataParallel wraps the model, since it goes on reducing "
    "the old parameters"
)


def tied_weights(model: nn.Module, v1: nn.Module, _: nn.Module) -> None:
    model.get_submodule(UNIT3).conv_pw.conv.weight = v1.conv_pw.conv.weight


# done to a model, one of its blocks of MobileNetV1, and one of MobileNetV2
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda _, __, v2: weight_norm(v2.conv3.conv), f"{PENALISED} {UNDOES}"),
        (lambda _, __, v2: v2.conv3.register_module("conv", SPECIAL), f"{PENALISED} {SUBCLASS}"),
        (
            lambda _, v1, __: weight_norm(depthwise(v1)),
            f"convolution '{UNIT2}.conv_dw.conv' can't become BSConv-U: {UNDOES}",
        ),
        (lambda _, v1, __: v1.conv_dw.register_forward_hook(print), f"'{UNIT2}.conv_dw' {HOOKS}"),
        (lambda _, v1, __: v1.register_state_dict_pre_hook(print), f"'{UNIT2}' {HOOKS}"),
        (
            lambda _, v1, __: depthwise(v1).weight.register_hook(print),
            f"'{UNIT2}.conv_dw.conv' {HOOKS}",
        ),
        (tied_weights, f"block '{UNIT2}' shares tensors with '{UNIT3}.conv_pw.conv', {TIED}"),
        (
            lambda model, v1, _: model.append(v1.conv_pw),
            f"block '{UNIT2}' shares tensors with '2', {TIED}",
        ),
        (lambda model, *_: setattr(model, "reg_loss", lambda: 0), OWN_LOSS),
        (lambda model, *_: model.append(Unstarted()), WRAPPED),
    ],
)
def test_what_cannot_be_changed_is_refused_before_anything_changes(spoil, message):
    model = nn.Sequential(small(1), small(2))
    spoil(model, *(part.get_submodule("backbone.stage4.unit2") for part in model))
    before = snapshot(model)
    for attempt in (MobileNetModifier().plan, modify_mobilenet):
        with raises_exactly(message):
            attempt(model)
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: build("torchvision", "mnasnet0_5"),  # InvertedResidual too, of another kind
        lambda: build("torchvision", "shufflenet_v2_x0_5"),
        lambda: nn.Conv2d(3, 3, 1),
        lambda: build("bsconv", "cifar_resnet20_bsconvu"),
        lambda: BSConvS_Replacer().apply(nn.Sequential(nn.Conv2d(9, 9, 3))),
    ],
)
def test_models_without_known_blocks_are_refused(make):
    model = make()
    before = snapshot(model)
    with raises_exactly(
        f"{type(model).__name__} has no block that modify_mobilenet can change"
        "; it knows the blocks of MobileNetV1, MobileNetV2, MobileNetV3, EfficientNet of bsconv, "
        "torchvision, pytorchcv, timm"
    ):
        modify_mobilenet(model)
    assert_unchanged(model, before)


@pytest.mark.parametrize("refused", ["0", "reg_loss"], ids=["a block", "the method"])
def test_nothing_is_half_done(refused):
    class Sealed(nn.Sequential):
        def __setattr__(self, name, value):
            if name == refused:
                raise AttributeError("sealed")
            super().__setattr__(name, value)

    inner = Sealed(separable_block("bsconv"), small(2))
    model = inner if refused == "reg_loss" else nn.Sequential(small(2), small(1), inner)
    before = snapshot(model)
    with pytest.raises(AttributeError, match="sealed"):
        modify_mobilenet(model)
    assert_unchanged(model, before)
