"""Replacement in any model: what is exchanged, what is kept, and that nothing is lost."""

import functools

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from bsconv.pytorch import (
    BSConvS,
    BSConvS_ModelRegLossMixin,
    BSConvS_Replacer,
    BSConvU,
    BSConvU_Replacer,
    get_model,
    reg_loss,
)
from helpers.exact_errors import raises_exactly
from helpers.model_snapshots import assert_unchanged, snapshot

REPLACERS = (BSConvU_Replacer, BSConvS_Replacer)


def net(**kwargs) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, **kwargs),
        nn.BatchNorm2d(16, **kwargs),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(16, 16, 5, padding=2, bias=False, **kwargs), nn.ReLU()),
        nn.Conv2d(16, 8, 1, **kwargs),
    )


def reasons(replacer, model: nn.Module) -> dict[str, str]:
    return {layer.name: layer.description for layer in replacer.plan(model).layers}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_layers_are_kept_for_these_reasons():
    class Subclass(nn.Conv2d):
        pass

    patched = nn.Conv2d(8, 8, 3)
    patched.forward = lambda x: x
    undoes = "kept: parametrised (weight), which {} undoes".format
    subclass = "kept: {} is a subclass of Conv2d and may compute something else".format
    conv, dtype = functools.partial(nn.Conv2d, 8, 8, 3), "kept: its weight is a Parameter of torch."
    layers = {
        "size": (nn.Conv2d(8, 8, 7), "kept: 7x7 is not among kernel_sizes"),
        "grouped": (conv(groups=2), "kept: grouped (groups=2)"),
        "subclass": (Subclass(8, 8, 3), subclass("Subclass")),
        "lazy": (nn.LazyConv2d(8, 3), subclass("LazyConv2d")),
        "parametrised": (parametrizations.weight_norm(conv()), undoes("remove_parametrizations")),
        "weight norm": (nn.utils.weight_norm(conv()), undoes("remove_weight_norm")),
        "spectral norm": (nn.utils.spectral_norm(conv()), undoes("remove_spectral_norm")),
        "pruned": (prune.l1_unstructured(conv(), "weight", 0.5), undoes("prune.remove")),
        "patched": (patched, "kept: its forward was exchanged on the instance"),
        "grey": (nn.Conv2d(1, 8, 3), "kept: BSConvU would have more parameters (88)"),
        "complex": (conv(dtype=torch.complex64), f"{dtype}complex64"),
        "float8": (conv().to(torch.float8_e4m3fn), f"{dtype}float8_e4m3fn"),
        "three": (nn.Conv3d(8, 8, 3), "kept: Conv3d is not a Conv2d"),
        "transposed": (nn.ConvTranspose2d(8, 8, 3), "kept: ConvTranspose2d is not a Conv2d"),
        "blueprint": (BSConvU(8, 8, 3), "kept: is BSConvU already"),
        "excluded": (conv(), "kept: excluded by 'exc*'"),
    }
    model = nn.ModuleDict({name: layer for name, (layer, _) in layers.items()})
    replacer = BSConvU_Replacer(exclude=["exc*"])
    assert reasons(replacer, model) == {name: reason for name, (_, reason) in layers.items()}
    with pytest.warns(UserWarning, match="no convolution was replaced: 1 x 7x7 .*; 1 x grouped"):
        replacer.apply(model)
    assert not isinstance(model["subclass"], BSConvU)


@pytest.mark.parametrize("replacer_class", REPLACERS)
def test_nothing_to_replace_is_said(replacer_class):
    with pytest.warns(UserWarning, match="no convolution was replaced: the model has none") as said:
        replacer_class().apply(nn.Linear(2, 2))
    assert said[0].filename == __file__  # it points at the caller
    model = nn.Sequential(nn.Conv2d(8, 8, 1))
    before = snapshot(model)
    # an error, where warnings are errors as in these tests; then nothing is changed
    with pytest.raises(UserWarning, match="1 x 1x1 is not among kernel_sizes"):
        replacer_class().apply(model)
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("kernel_sizes", "replaced"),
    [
        ([3], ["0"]), ([(3, 3)], ["0"]), ([5, (1, 1)], ["3.0"]), (((3, 3), (5, 5)), ["0", "3.0"]),
        (None, ["0", "3.0"]),  # a 1x1 convolution would only grow
    ],
)  # fmt: skip
def test_kernel_sizes_select(kernel_sizes, replaced):
    plan = BSConvU_Replacer(kernel_sizes=kernel_sizes).plan(net())
    assert [layer.name for layer in plan.replaced] == replaced


@pytest.mark.parametrize("dimensions", [(1,), (2, 3), (1, 2, 3)])
def test_dimensions_select(dimensions):
    """Sizes of equal sides count in all of them."""
    convs = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    model = nn.ModuleDict({str(n): conv(8, 16, 5) for n, conv in convs.items()})
    plan = BSConvU_Replacer([(3, 3), (5, 5)], dimensions=dimensions).plan(model)
    assert {int(layer.name) for layer in plan.replaced} == {*dimensions}
    wanted = " or ".join(f"Conv{n}d" for n in dimensions)
    for layer in plan.kept:
        assert layer.description == f"kept: Conv{layer.name}d is not a {wanted}"


def test_kernel_sizes_of_unequal_sides_have_dimensions():
    model = nn.ModuleList([nn.Conv3d(8, 8, (1, 3, 3)), nn.Conv2d(8, 8, (1, 3)), nn.Conv1d(8, 8, 3)])
    for sizes, replaced in (([(1, 3, 3)], ["0"]), ([(1, 3)], ["1"]), ([3, (1, 3)], ["1", "2"])):
        plan = BSConvU_Replacer(sizes, dimensions=(1, 2, 3)).plan(model)
        assert [layer.name for layer in plan.replaced] == replaced


@pytest.mark.parametrize("exclude", [["3"], ["3.0"], ["3.*"], ["*.0", "4"], {"3": 0}.keys()])
def test_exclude_keeps_layers_and_all_inside_them(exclude):
    model = BSConvU_Replacer(exclude=exclude).apply(net())
    assert isinstance(model[0], BSConvU)
    assert type(model[3][0]) is nn.Conv2d


def test_a_root_convolution_is_returned_converted():
    conv = nn.Conv2d(16, 8, 3)
    assert type(BSConvU_Replacer().apply(conv)) is BSConvU
    s = BSConvS_Replacer().apply(conv)
    assert type(s) is BSConvS
    torch.testing.assert_close(s.reg_loss(), reg_loss(s))
    assert "(root)" in str(BSConvU_Replacer().plan(conv))


@pytest.mark.parametrize("init", ["default", "matched", "project"])
def test_options_reach_the_layers(init):
    options = {"with_bn": True, "bn_kwargs": {"eps": 0.5}, "min_mid_channels": 6}
    model = BSConvS_Replacer(p=1 / 2, init=init, **options).apply(net())
    assert (model[3][0].pw1.out_channels, model[3][0].bn1.eps) == (8, 0.5)
    replacer = BSConvS_Replacer(p=0, min_mid_channels=6)
    assert replacer.apply(net())[3][0].pw1.out_channels == 6
    assert "p=0" in repr(replacer)


def test_a_weight_that_another_kind_of_layer_uses_too_is_kept():
    class Decoder(nn.Module):
        def __init__(self, weight: nn.Parameter) -> None:
            super().__init__()
            self.kernel = weight

    conv, other = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
    other.bias = conv.bias  # goes with it
    model = nn.Sequential(conv, Decoder(conv.weight), other, nn.Conv2d(8, 8, 3))
    described = reasons(BSConvU_Replacer(), model)
    assert described["0"] == "kept: shares a parameter with 1.kernel"
    assert described["2"] == "kept: shares a parameter with 0.bias"
    model = BSConvU_Replacer().apply(model)
    assert model[1].kernel is model[0].weight
    assert isinstance(model[3], BSConvU)


@pytest.mark.parametrize("replacer_class", REPLACERS)
@pytest.mark.parametrize(
    ("register", "kind"),
    [
        (lambda conv: conv.register_state_dict_post_hook(lambda *_: None), "its state dict"),
        (lambda conv: conv.register_load_state_dict_pre_hook(lambda *_: None), "its state dict"),
        (lambda conv: conv.weight.register_hook(print), "its parameter weight"),
        (lambda conv: conv.bias.register_post_accumulate_grad_hook(print), "its parameter bias"),
    ],
)
def test_hooks_that_cannot_move_are_refused_before_anything_changes(replacer_class, register, kind):
    model = nn.Sequential(net(), nn.Conv2d(8, 8, 3))
    register(model[1])
    before = snapshot(model)
    message = (
        f"layer '1' has hooks on {kind}, which can't move to another layer: remove them, or keep "
        "the layer with exclude=['1']"
    )
    for refused in (replacer_class().apply, replacer_class().plan):
        with raises_exactly(message):
            refused(model)
    assert_unchanged(model, before)
    replacer_class(exclude=["1"]).apply(model)


@pytest.mark.parametrize("replacer_class", REPLACERS)
def test_what_was_attached_to_a_convolution_goes_along(replacer_class):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = BSConvU(8, 8, 3).to_conv2d()
            self.conv.gain, self.conv.stage = 0.5, ["a"]

        def forward(self, x):
            return self.conv(x) * getattr(self.conv, "gain", 1.0)

    model, images = Scaled(), torch.rand(2, 8, 5, 5)
    expected, stage = model(images), model.conv.stage
    options = {"p": 1.0} if replacer_class is BSConvS_Replacer else {}
    replacer_class(init="project", **options).apply(model)
    assert model.conv.stage is stage
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("refusal", [AttributeError("sealed"), KeyboardInterrupt("sealed")])
def test_a_parent_that_refuses_leaves_the_model_as_it_was(refusal):
    class Sealed(nn.Sequential):
        def __setattr__(self, name, value):
            raise refusal

    model = nn.Sequential(net(), Sealed(nn.Conv2d(8, 8, 3)))
    before = snapshot(model)
    with pytest.raises(type(refusal), match="sealed"):
        BSConvS_Replacer().apply(model)
    assert_unchanged(model, before)


@pytest.mark.usefixtures("process_group")
def test_a_model_wrapped_for_distributed_training_is_refused():
    model = nn.parallel.DistributedDataParallel(net())
    assert reg_loss(model) == 0
    with raises_exactly(
        "change the layers before DistributedDataParallel wraps the model, since it goes on "
        "reducing the old parameters"
    ):
        BSConvU_Replacer().apply(model)
    wrapped = nn.parallel.DistributedDataParallel(BSConvS_Replacer().apply(net()))
    torch.testing.assert_close(reg_loss(wrapped), wrapped.module.reg_loss())


def test_excluding_what_is_not_there_names_what_is_near():
    absent = "exclude names no layer of this model:"
    with raises_exactly(f"{absent} 'layer'"):
        BSConvU_Replacer(exclude=["layer"]).plan(net())
    model = nn.ModuleDict({"stem": nn.Conv2d(8, 8, 3), "stem1": nn.Conv2d(8, 8, 3)})
    with raises_exactly(f"{absent} 'stem2', did you mean stem1 or stem?"):
        BSConvU_Replacer(exclude=["stem2"]).plan(model)


def test_any_name_of_the_model_can_be_excluded():
    brackets = nn.ModuleDict({"stage[1]": nn.Conv2d(8, 8, 3), "stage1": nn.Conv2d(8, 8, 3)})
    plan = BSConvU_Replacer(exclude=["stage[1]"]).plan(brackets)
    assert [layer.name for layer in plan.kept] == ["stage[1]"]
    inside = nn.ModuleDict({"stage[1]": BSConvU(8, 8, 3), "stage2": nn.Conv2d(8, 8, 3)})
    inside["stage2"].kind, inside["stage2"].layer = "stem", 2  # attributes of a user
    for pattern in ("stage[1].dw", "*.dw"):
        plan = BSConvU_Replacer(exclude=[pattern]).plan(inside)
        assert [layer.name for layer in plan.replaced] == ["stage2"]


def test_a_class_with_the_mixin_keeps_its_method():
    model = get_model("cifar_resnet20", 10)
    assert isinstance(model, BSConvS_ModelRegLossMixin)
    assert model.reg_loss() == 0
    model = BSConvS_Replacer().apply(model)
    assert "reg_loss" not in vars(model)
    torch.testing.assert_close(model.reg_loss(), reg_loss(model))
    assert model.reg_loss() > 0


def test_another_kind_of_reg_loss_is_not_hidden():
    class Other(nn.Sequential):
        def reg_loss(self):
            return 0

    model = Other(net())
    before = snapshot(model)
    with raises_exactly(
        "Other has a reg_loss of its own, which the penalty of BSConv-S would hide: rename it, or "
        "change the model's children and call bsconv.pytorch.reg_loss(model, alpha)"
    ):
        BSConvS_Replacer().apply(model)
    assert_unchanged(model, before)
    BSConvU_Replacer().apply(model)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, about the engine
@pytest.mark.parametrize("replacer_class", REPLACERS)
@pytest.mark.parametrize("with_bn", [False, True])
def test_compiled_exported_and_scripted_models_compute_the_same(replacer_class, with_bn):
    model = replacer_class(with_bn=with_bn).apply(net()).eval()
    images = torch.randn(2, 3, 8, 8)
    expected = model(images)
    exported = torch.export.export(model, (images,)).module()
    for same in (torch.compile(model, fullgraph=True), exported, torch.jit.script(model)):
        torch.testing.assert_close(same(images), expected)


@pytest.mark.parametrize("replacer_class", REPLACERS)
def test_projecting_keeps_a_blueprint_network_and_most_of_any_other(replacer_class):
    blueprint = net(dtype=torch.float64).eval()
    blueprint[0] = BSConvS(3, 16, 3, padding=1, dtype=torch.float64).to_conv2d()
    blueprint[3][0] = BSConvS(16, 16, 5, padding=2, bias=False, dtype=torch.float64).to_conv2d()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    expected = blueprint(images)
    projected = replacer_class(init="project").apply(blueprint)
    assert type(projected[0]) is replacer_class.layer_class
    torch.testing.assert_close(projected(images), expected, rtol=1e-6, atol=1e-6)


def test_a_replacer_shows_its_arguments():
    assert repr(BSConvU_Replacer([3], init="matched", exclude=["stem"])) == (
        "BSConvU_Replacer(kernel_sizes=((3, 3),), with_bn=False, bn_kwargs=None, init='matched', "
        "exclude=('stem',), dimensions=(2,))"
    )
    assert repr(BSConvS_Replacer(None, p=0.5, with_bn=True)) == (
        "BSConvS_Replacer(kernel_sizes=None, p=0.5, min_mid_channels=4, with_bn=True, "
        "bn_kwargs=None, init='default', exclude=(), dimensions=(2,))"
    )


def test_the_table_shows_every_layer_with_its_parameters():
    plan = BSConvU_Replacer().plan(net())
    lines = str(plan).splitlines()
    assert lines[0].split() == ["layer", "what", "happens,", "and", "why", "before", "after"]
    assert lines[2].split() == ["0", *["3x3", "Conv2d", "becomes", "BSConv-U"], "448", "208"]
    assert lines[4].endswith("136    136")
    before, after = plan.parameters_before, plan.parameters_after
    assert lines[-1].startswith("2 of 3 convolutions replaced; parameters of the model: ")
    assert f"{before:,} before, {after:,} after ({after / before:.1%})" in lines[-1]


@pytest.mark.parametrize(("verbosity", "lines"), [(0, 0), (1, 1), (2, 6)])
def test_verbosity_prints_nothing_a_line_or_the_table(verbosity, lines, capsys):
    BSConvU_Replacer(verbosity=verbosity).apply(net())
    assert len(capsys.readouterr().out.splitlines()) == lines
