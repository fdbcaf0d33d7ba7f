"""Optimised models against the originals in eval mode, and layers against dense convolutions."""

import copy
import io
import pickle
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torchvision
from torch import Tensor, nn

from bsconv.pytorch import (
    BSConvS,
    BSConvS_Replacer,
    BSConvU,
    BSConvU_Replacer,
    collapse,
    get_model,
    modify_mobilenet,
    optimize_for_inference,
)
from bsconv.pytorch._tools.joining import ShiftedConv2d
from bsconv.pytorch.inference import OptimizedModel
from bsconv.pytorch.inference import _choice as _form_choice
from bsconv.pytorch.inference import _model as _optimized
from bsconv.pytorch.inference import _optimize as inference
from bsconv.pytorch.inference._folding import foldable_pairs
from bsconv.pytorch.inference._plans import layer_plans
from bsconv.pytorch.regularization import OrthonormalConv2d
from helpers.exact_errors import raises_exactly

IMAGES = (2, 3, 48, 48)


def trained(model: nn.Module) -> nn.Module:
    """With BatchNorms and biases that are far from the identity, in training mode."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.3)
    return model.train()


def in_eval_mode(model: nn.Module, images: Tensor) -> Any:
    with torch.no_grad():
        return copy.deepcopy(model).eval()(images)


def assert_equal(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Relative to the largest output; the border rows and columns by themselves as well."""
    largest = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * largest)


def assert_same_function(
    optimized: nn.Module, model: nn.Module, size: tuple[int, ...] = IMAGES
) -> None:
    """At the size of the example, for one image, for several, and at another size."""
    batch, channels, height, width = size
    for other in (size, (1, *size[1:]), (batch + 1, channels, height + 16, width + 9)):
        images = torch.randn(other)
        assert_equal(optimized(images), in_eval_mode(model, images))


def eager(model: nn.Module, size: tuple[int, ...] = IMAGES, **options: Any) -> OptimizedModel:
    return optimize_for_inference(model, torch.randn(size), compile=False, **options)


# --- whole models ---------------------------------------------------------------------------------

REPLACERS = {
    "dense": lambda model: model,
    "u": BSConvU_Replacer().apply,
    "u, BatchNorm": BSConvU_Replacer(with_bn=True).apply,
    "s": BSConvS_Replacer().apply,
    "s, BatchNorm": BSConvS_Replacer(with_bn=True).apply,
}


def of_torchvision(name: str) -> nn.Module:
    if name != "vgg16_bn":
        return getattr(torchvision.models, name)(num_classes=10)
    # two of its three dense layers weigh more than all else
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], batch_norm=True)
    classifier = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(512 * 49, 10))
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(7), classifier)


@pytest.mark.nightly
@pytest.mark.parametrize("replace", list(REPLACERS))
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "vgg16_bn", "densenet121"])
def test_models_of_torchvision(name: str, replace: str) -> None:
    model = trained(REPLACERS[replace](of_torchvision(name)))
    optimized = eager(model)
    assert_same_function(optimized, model)
    left = [module for module in optimized.modules() if isinstance(module, nn.BatchNorm2d)]
    # a DenseNet normalises before its convolutions: a third of its BatchNorms follow none
    assert len(left) == (62 if name == "densenet121" else 0)


@pytest.mark.parametrize(
    "name",
    [
        "cifar_resnet20_bsconvs_p1d4",
        "cifar_mobilenetv1_w1d4_bsconvu",
        "cifar_mobilenetv3_small_w1d2",
        "cifar_preresnet20_bsconvu",
    ],
)
def test_models_by_name(name: str) -> None:
    model = trained(get_model(name, 10))
    assert_same_function(eager(model, (2, 3, 32, 32)), model, (2, 3, 32, 32))


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0"])
def test_modified_mobilenets(name: str) -> None:
    model = trained(modify_mobilenet(getattr(torchvision.models, name)(num_classes=10)))
    optimized = eager(model)
    assert_same_function(optimized, model)
    assert not [module for module in optimized.modules() if isinstance(module, nn.BatchNorm2d)]


def test_trained_weights_of_our_own() -> None:
    model = get_model("cifar_wrn16_1_bsconvu", 10, pretrained="cifar10")
    assert_same_function(eager(model, (2, 3, 32, 32)), model, (2, 3, 32, 32))


# --- forms of one layer ---------------------------------------------------------------------------

GEOMETRIES: list[dict[str, Any]] = [
    {"padding": 1},
    {"padding": 0},
    {"padding": (2, 0), "stride": 2},
    {"padding": "same", "dilation": 2},
    {"padding": "valid", "bias": False},
    {"padding": 1, "padding_mode": "reflect", "stride": (1, 2)},
    {"padding": 2, "padding_mode": "circular", "bias": False},
]
LAYERS: list[Callable[..., Any]] = [BSConvU, BSConvS]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("with_bn", [False, True])
@pytest.mark.parametrize("make", LAYERS)
def test_each_form_is_the_layer_also_at_the_border(
    make: Callable[..., Any], with_bn: bool, geometry: dict[str, Any]
) -> None:
    layer: Any = trained(make(8, 6, 3, with_bn=with_bn, dtype=torch.float64, **geometry)).eval()
    found = layer_plans(layer)
    assert list(found) == list(type(layer)._plans)
    images = torch.randn(2, 8, 9, 7, dtype=torch.float64)
    expected = layer(images)
    for form in found.values():
        torch.testing.assert_close(form(images), expected)
        for rows in (slice(0, 1), slice(-1, None)):
            torch.testing.assert_close(form(images)[:, :, rows], expected[:, :, rows])
            torch.testing.assert_close(form(images)[..., rows], expected[..., rows])


def test_a_bias_alone_would_be_wrong_at_the_border() -> None:
    """What ShiftedConv2d is for: without the border it adds one number per channel."""
    layer: Any = trained(BSConvU(4, 5, 3, padding=1, with_bn=True)).eval()
    merged = layer_plans(layer)["merged"]
    assert isinstance(merged, ShiftedConv2d)
    images = torch.randn(1, 4, 6, 6)
    added = (merged(images) - merged.conv(images))[0]
    inside = added[:, 1:-1, 1:-1].flatten(1)
    torch.testing.assert_close(inside, inside[:, :1].expand_as(inside))
    assert ((added[:, 0] - added[:, 1]).abs() > 1e-3).any()


def test_forms_need_plain_parts() -> None:
    layer = BSConvU(4, 5, 3, with_bn=True)
    assert layer_plans(layer) == {}, "in training mode it normalises by its batch"
    assert layer_plans(layer.eval())
    layer.pw.register_forward_hook(lambda module, inputs, output: None)
    assert layer_plans(layer) == {}


# --- which BatchNorms are folded ------------------------------------------------------------------


class Graph(nn.Module):
    """Two convolutions, a BatchNorm each, and a forward function to order them."""

    def __init__(self, order: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 3, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(3)
        self.order = order

    def forward(self, images: Tensor) -> Any:
        return self.order(self, images)


def in_turn(net: Any, images: Tensor) -> Tensor:
    return net.norm2(net.conv2(net.norm1(net.conv1(images)).relu()))


def also_used_elsewhere(net: Any, images: Tensor) -> Tensor:
    raw = net.conv1(images)
    return raw + net.norm2(net.conv2(net.norm1(raw)))


def called_twice(net: Any, images: Tensor) -> Tensor:
    return net.norm2(net.conv2(net.norm1(net.conv1(net.norm1(net.conv1(images))))))


def activation_between(net: Any, images: Tensor) -> Tensor:
    return net.norm2(net.conv2(net.norm1(net.conv1(images).relu())))


def norm_before(net: Any, images: Tensor) -> Tensor:
    return net.conv2(net.norm2(net.conv1(net.norm1(images))))


def depends_on_values(net: Any, images: Tensor) -> Tensor:
    normed = net.norm1(net.conv1(images))
    return net.norm2(net.conv2(normed)) if normed.mean() > 1e6 else normed * 2


class Order(NamedTuple):
    order: Callable[[Any, Tensor], Tensor]
    folded: int


@pytest.mark.parametrize(
    "case",
    [
        Order(in_turn, 2),
        Order(also_used_elsewhere, 1),
        Order(called_twice, 1),
        Order(activation_between, 1),
        Order(norm_before, 1),  # norm2 follows conv1
        Order(depends_on_values, 0),
    ],
    ids=lambda case: case.order.__name__,
)
def test_only_what_follows_a_convolution_alone_is_folded(case: Order) -> None:
    model = trained(Graph(case.order))
    optimized = eager(model, (2, 3, 10, 10))
    assert optimized.report.norms_folded == case.folded
    assert_same_function(optimized, model, (2, 3, 10, 10))


def test_parts_are_looked_into_where_the_whole_cannot_be_followed() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Graph(in_turn), Graph(in_turn)

        def forward(self, images: Tensor) -> Tensor:
            images = self.first(images)
            return self.second(images) if images.mean() < 1e6 else images

    model = trained(Branching())
    optimized = eager(model, (2, 3, 10, 10))
    assert optimized.report.norms_folded == 4
    assert_same_function(optimized, model, (2, 3, 10, 10))


class Deciding(nn.Module):
    """Cannot be followed: values decide what it computes, behind its parts."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, images: Tensor) -> Tensor:
        for part in self.children():
            images = part(images)
        return images if images.mean() < 1e6 else images * 2


def conv_and_norm() -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)


def test_what_surrounds_a_part_that_cannot_be_followed_is_looked_into_too() -> None:
    inner = Deciding(body=nn.Sequential(*conv_and_norm(), nn.ReLU()))
    model = trained(nn.Sequential(*conv_and_norm(), inner, *conv_and_norm()))
    optimized = eager(model, (2, 3, 10, 10))
    assert optimized.report.norms_folded == 3
    assert_same_function(optimized, model, (2, 3, 10, 10))


def test_a_part_that_cannot_be_followed_stands_between() -> None:
    conv, norm = conv_and_norm()
    model = trained(nn.Sequential(conv, Deciding(part=nn.ReLU()), norm))
    optimized = eager(model, (2, 3, 10, 10))
    assert optimized.report.norms_folded == 0
    assert_same_function(optimized, model, (2, 3, 10, 10))


def test_a_part_in_two_places_is_folded_once() -> None:
    part = nn.Sequential(*conv_and_norm())
    model = Deciding(first=Deciding(part=part))
    model.again = part
    model = trained(model)
    optimized = eager(model, (2, 3, 10, 10))
    assert_same_function(optimized, model, (2, 3, 10, 10))
    once = Deciding(part=part)
    once.spare = nn.ModuleList([part])
    once.forward = lambda images: part(images)  # type: ignore[method-assign]
    assert len(foldable_pairs(once.eval(), lambda: once(torch.randn(1, 3, 8, 8)))) == 1


class Doubling(nn.Conv2d):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * 2


class OwnU(BSConvU):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 1


@pytest.mark.parametrize(
    ("layer", "folded"),
    [
        (nn.Conv2d(4, 4, 3, groups=2), 1),
        (nn.Conv2d(4, 4, 3, groups=4, bias=False), 1),
        (OrthonormalConv2d(4, 4, 1), 1),
        (BSConvU(4, 4, 3), 1),
        (BSConvS(4, 4, 3, with_bn=True, bias=False), 3),
        (Doubling(4, 4, 3), 0),
        (OwnU(4, 4, 3), 0),
        (nn.ConvTranspose2d(4, 4, 3), 0),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)), 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_norms_go_into_plain_convolutions_and_bsconv_layers(layer: nn.Module, folded: int) -> None:
    model = trained(nn.Sequential(layer, nn.BatchNorm2d(4)))
    pairs = foldable_pairs(model.eval(), lambda: model(torch.randn(1, 4, 8, 8)))
    assert pairs == ([(layer, model[1])] if folded else [])
    optimized = eager(model, (2, 4, 8, 8))
    assert optimized.report.norms_folded == folded
    assert_same_function(optimized, model, (2, 4, 8, 8))


def test_bsconv_layers_with_a_forward_of_their_own_stay() -> None:
    patched, within = BSConvU(4, 4, 3), BSConvU(4, 4, 3)
    patched.forward = lambda images: images[:, :, 1:-1, 1:-1] * 2  # type: ignore[method-assign]
    within.pw.forward = lambda images: images * 3  # type: ignore[method-assign]
    model = trained(nn.Sequential(OwnU(4, 4, 3), nn.BatchNorm2d(4), patched, within)).eval()
    optimized = eager(model, (2, 4, 16, 16))
    forms_taken = [row.form for row in optimized.report.layers]
    assert forms_taken == ["as it is: a subclass, hooks or other layers in it"] * 3
    assert optimized.report.norms_folded == 0
    assert_same_function(optimized, model, (2, 4, 16, 16))
    with pytest.warns(UserWarning, match=r"0: it is a subclass.*; 2: it is a s.*; 3: it is a s"):
        collapsed = collapse(model)
    images = torch.randn(2, 4, 16, 16)
    assert_equal(collapsed(images), model(images))


@pytest.mark.parametrize("where", ["0", "0.dw", "0.pw", "1"])
def test_norms_with_hooks_around_them_stay(where: str) -> None:
    model = trained(nn.Sequential(BSConvU(4, 4, 3), nn.BatchNorm2d(4)))
    model.get_submodule(where).register_forward_hook(lambda module, inputs, output: output * 2)
    pairs = foldable_pairs(model.eval(), lambda: model(torch.randn(1, 4, 8, 8)))
    # a hook on pw is no obstacle: nothing is folded into that
    assert len(pairs) == (where == "0.pw")
    assert_same_function(eager(model, (2, 4, 8, 8)), model, (2, 4, 8, 8))


def test_a_part_that_is_also_called_from_outside_is_left_alone() -> None:
    class Reaching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Graph(in_turn)

        def forward(self, images: Tensor) -> Tensor:
            images = self.part(images) if images.mean() < 1e6 else images
            return self.part.conv1(images)

    model = trained(Reaching())
    optimized = eager(model, (2, 3, 10, 10))
    assert optimized.report.norms_folded == 1
    assert_same_function(optimized, model, (2, 3, 10, 10))


def test_batch_statistics_and_hooks_stay() -> None:
    model = Graph(in_turn)
    model.norm1 = nn.BatchNorm2d(3, track_running_stats=False)
    model.conv2.register_forward_hook(lambda module, inputs, output: output * 2)
    optimized = eager(trained(model), (2, 3, 10, 10))
    assert optimized.report.norms_folded == 0
    images = torch.randn(2, 3, 10, 10)
    assert_equal(optimized(images), in_eval_mode(model, images))


def test_tied_weights_are_untied_where_one_is_folded() -> None:
    model = Graph(in_turn)
    model.conv2.weight = model.conv1.weight
    model = trained(model)
    assert_same_function(eager(model, (2, 3, 10, 10)), model, (2, 3, 10, 10))


def test_a_layer_in_several_places_is_exchanged_in_all() -> None:
    layer = BSConvU(4, 4, 3, padding=1)
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.Sequential(layer))
    optimized = eager(model, (2, 4, 8, 8))
    assert [row.name for row in optimized.report.layers] == ["0", "2", "3.0"]
    assert not [module for module in optimized.modules() if isinstance(module, BSConvU)]
    assert_same_function(optimized, model, (2, 4, 8, 8))


def test_a_root_layer_and_layers_that_are_never_called() -> None:
    root = trained(BSConvS(8, 4, 3, padding=1, with_bn=True))
    assert_same_function(eager(root, (2, 8, 6, 6)), root, (2, 8, 6, 6))
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    model[0].spare = BSConvU(4, 4, 3)
    assert eager(model, (1, 3, 8, 8)).report.layers[0].form == "factored"


def test_pairs_are_found_without_a_trace() -> None:
    model = trained(torchvision.models.resnet18(num_classes=5)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pairs = foldable_pairs(model, lambda: model(torch.randn(1, 3, 32, 32)))
    assert len(pairs) == 20
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not [module for module in model.modules() if module._forward_pre_hooks]


# --- the result as a module -----------------------------------------------------------------------


def test_the_original_stays_as_it_is() -> None:
    model = trained(REPLACERS["s, BatchNorm"](torchvision.models.resnet18(num_classes=10)))
    model.fc.eval()
    model.conv1.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    eager(model, dtype=torch.bfloat16)
    assert [module.training for module in model.modules()] == modes
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    flags = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert flags == {"conv1.weight"}
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def small() -> nn.Module:
    return trained(
        nn.Sequential(
            BSConvU(3, 16, 3, padding=1, with_bn=True),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            BSConvS(16, 8, 3, stride=2, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
    )


def test_no_gradients_and_no_training() -> None:
    optimized = eager(small())
    assert not optimized.training
    assert not any(parameter.requires_grad for parameter in optimized.parameters())
    assert not optimized(torch.randn(IMAGES).requires_grad_()).requires_grad
    assert torch.is_grad_enabled()
    optimized.eval()
    with raises_exactly(
        "an optimised model cannot be trained: BatchNorms are part of its weights; train the model "
        "it was made from"
    ):
        optimized.train()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_shorter_numbers(dtype: torch.dtype) -> None:
    model = trained(REPLACERS["s, BatchNorm"](torchvision.models.densenet121(num_classes=10)))
    optimized = eager(model, dtype=dtype)
    images = torch.randn(IMAGES)
    found, expected = optimized(images), in_eval_mode(model, images)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).norm() / expected.norm() < 0.05
    assert optimized(images.to(dtype)).dtype == dtype
    kept = [m for m in optimized.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.running_var.dtype for norm in kept if norm.running_var is not None} == {
        torch.float32
    }


def test_inputs_that_are_no_images_have_no_memory_format() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh())
    optimized = eager(model, (2, 5))
    assert (optimized.report.memory_format, optimized.report.input_size) == ("contiguous", (2, 5))
    for rows in (2, 7):
        features = torch.randn(rows, 5)
        assert_equal(optimized(features), in_eval_mode(model, features))


def test_double_precision() -> None:
    model = small().double()
    images = torch.randn(IMAGES, dtype=torch.float64)
    optimized = optimize_for_inference(model, images, compile=False)
    torch.testing.assert_close(optimized(images), in_eval_mode(model, images))
    assert optimized.report.dtype == "float64"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_pickles(copied: Callable[[Any], Any]) -> None:
    model = small()
    optimized = eager(model)
    twin = copied(optimized)
    assert str(twin.report) == str(optimized.report)
    images = torch.randn(IMAGES)
    expected = optimized(images)
    assert torch.equal(twin(images), expected)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(optimized(images), expected)


def test_saved_and_loaded() -> None:
    model, file = small(), io.BytesIO()
    torch.save(eager(model), file)
    file.seek(0)
    assert_same_function(torch.load(file, weights_only=False), model)


def test_outputs_of_several_tensors() -> None:
    class Point(NamedTuple):
        x: Tensor
        index: Tensor

    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = BSConvU(3, 4, 3)

        def forward(self, images: Tensor) -> Any:
            out = self.conv(images)
            return OrderedDict(out=out, pair=[Point(out.sum(), out.argmax()), (out, "text")])

    model = Several()
    images = torch.randn(IMAGES)
    found, expected = eager(model, dtype=torch.bfloat16)(images), in_eval_mode(model, images)
    assert type(found) is OrderedDict
    assert found["out"].dtype == torch.float32
    point, (again, text) = found["pair"]
    assert (type(point).__name__, point.index.dtype, text) == ("Point", torch.int64, "text")
    assert_equal(again, expected["out"], 0.02)


# --- torch.compile --------------------------------------------------------------------------------


@pytest.mark.slow
def test_compiled_for_the_example_and_eager_for_the_rest() -> None:
    model = small()
    optimized = optimize_for_inference(model, torch.randn(IMAGES), compile=True)
    report = optimized.report
    assert report.compiled or report.lost
    assert optimized.compiles == report.compiled
    assert_same_function(optimized, model)
    images = torch.randn(IMAGES)
    with torch.inference_mode():
        assert_equal(optimized(images), in_eval_mode(model, images))
    twin = copy.deepcopy(optimized)
    assert_equal(twin(images), in_eval_mode(model, images))
    assert twin.compiles == report.compiled


def test_more_networks_than_torch_compile_takes_by_itself() -> None:
    from torch._dynamo import config

    images = torch.randn(1, 3, 4, 4)
    with config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
        for layer in (nn.ReLU(), nn.Tanh(), nn.Sigmoid()):
            network = optimize_for_inference(layer, images, compile=True)
            assert network.compiles or network.report.lost
            assert "limit" not in network.report.lost
            torch.testing.assert_close(network(images), layer(images))


def test_nothing_is_recorded_for_gradients_on_the_way() -> None:
    class Watching(nn.Module):
        seen: set[bool] = set()  # noqa: RUF012 - shared by all copies

        def forward(self, images: Tensor) -> Tensor:
            self.seen.add(torch.is_grad_enabled())
            return images

    optimized = eager(nn.Sequential(Watching(), small()))
    with torch.inference_mode():
        optimized(torch.randn(IMAGES))
    assert Watching.seen == {False}


def test_without_a_compiler_it_says_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(network: nn.Module, example: Tensor) -> None:
        raise RuntimeError("No working C++ compiler found\nmuch more")

    model = small()
    monkeypatch.setattr(inference, "compiled_for", fails)
    optimized = optimize_for_inference(model, torch.randn(IMAGES))
    assert not optimized.compiles
    lost = "not compiled, which costs speed: RuntimeError: No working C++ compiler found"
    assert optimized.report.lost == lost
    assert optimized.report.summary.endswith(lost)
    assert_same_function(optimized, model)


def test_a_copy_does_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(network: nn.Module, example: Tensor) -> None:
        raise RuntimeError("No working C++ compiler found")

    def works(network: nn.Module, example: Tensor) -> nn.Module:
        return network

    model = small()
    monkeypatch.setattr(inference, "compiled_for", works)
    optimized = optimize_for_inference(model, torch.randn(IMAGES), compile=True)
    assert optimized.compiles
    monkeypatch.setattr(_optimized, "compiled_for", fails)
    twin = copy.deepcopy(optimized)
    images = torch.randn(IMAGES)
    assert twin.compiles
    assert_equal(twin(images), in_eval_mode(model, images))
    assert not twin.compiles


def test_a_copy_is_compiled_anew_in_its_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[nn.Module, torch.Size]] = []

    def works(network: nn.Module, example: Tensor) -> Any:
        made.append((network, example.shape))
        return lambda images: network(images) + len(made)

    monkeypatch.setattr(inference, "compiled_for", lambda network, _: network)
    optimized = optimize_for_inference(small(), torch.randn(IMAGES), compile=True)
    monkeypatch.setattr(_optimized, "compiled_for", works)
    twin, images = copy.deepcopy(optimized), torch.randn(IMAGES)
    expected = optimized(images)
    assert made == []  # its own was compiled before
    for _ in range(2):
        assert_equal(twin(images), expected + 1)
    assert_equal(twin(images[:1]), expected[:1])  # another size: not compiled
    assert made == [(twin.network, images.shape)]
    assert twin.compiles


def test_wrong_compiled_code_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "compiled_for", lambda network, _: lambda x: network(x) * 1.01)
    optimized = optimize_for_inference(small(), torch.randn(IMAGES), compile=True)
    assert not optimized.compiles
    assert "compiled, it differed by 1.0e-02" in optimized.report.lost


@pytest.mark.parametrize(
    ("compile", "factored", "seconds", "forms"),
    [
        ("auto", 2.0, 1.0, ["merged", "joined"]),  # eager is the fastest
        (True, 2.0, 1.5, ["merged", "joined"]),
        ("auto", 0.5, 0.5, ["factored", "factored"]),
        (True, 0.5, 0.5, ["factored", "factored"]),
    ],
)
def test_the_fastest_is_taken(
    compile: Any, factored: float, seconds: float, forms: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def known(contenders: dict[str, Any], device: torch.device, budget: float) -> dict[str, float]:
        for contender in contenders.values():
            contender()
        times = {"factored": 3.0, "joined": 2.0, "narrow": 4.0, "merged": 2.5} | {
            **{"contiguous": 2.0, "channels_last": 1.0},
            **{"given": 4.0, "eager": 1.0, "compiled": 1.5, "compiled factored": factored},
        }
        return {name: times[name] for name in contenders}

    for module in (inference, _form_choice):
        monkeypatch.setattr(module, "seconds_in_turns", known)
    monkeypatch.setattr(inference, "compiled_for", lambda network, example: network)
    model = small()
    optimized = optimize_for_inference(model, torch.randn(IMAGES), compile=compile)
    report = optimized.report
    assert (report.seconds, report.seconds_before) == (seconds, 4.0)
    assert report.compiled == optimized.compiles == (seconds != 1.0)
    assert [row.form for row in report.layers] == forms
    assert_same_function(optimized, model)


@pytest.mark.parametrize(("factored", "tried"), [(1.0, False), (5.0, True)])
def test_all_factored_is_compiled_too_where_it_is_another_choice(
    factored: float, tried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()

    def known(contenders: dict[str, Any], device: torch.device, budget: float) -> dict[str, float]:
        seen.update(contenders)
        return dict.fromkeys(contenders, 2.0) | {"factored": factored}

    for module in (inference, _form_choice):
        monkeypatch.setattr(module, "seconds_in_turns", known)
    monkeypatch.setattr(inference, "compiled_for", lambda network, example: network)
    optimize_for_inference(small(), torch.randn(IMAGES), compile=True)
    assert ("compiled factored" in seen) is tried


# --- the report -----------------------------------------------------------------------------------


def test_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(contenders: dict[str, Any], device: torch.device, budget: float) -> dict[str, float]:
        seconds = {"factored": 0.002, "joined": 0.003, "narrow": 0.001, "merged": 0.004}
        seconds |= {"contiguous": 2.0, "channels_last": 1.0, "given": 0.03, "eager": 0.01}
        return {name: seconds[name] for name in contenders}

    for module in (inference, _form_choice):
        monkeypatch.setattr(module, "seconds_in_turns", known)
    report = eager(small()).report
    assert [(row.name, row.kind, row.form, row.norms_folded) for row in report.layers] == [
        ("0", "BSConvU", "factored", 2),
        ("3", "BSConvS", "narrow", 0),
    ]
    assert report.layers[0].seconds == {"factored": 0.002, "merged": 0.004}
    assert (report.norms_folded, report.seconds, report.compiled) == (2, 0.01, False)
    assert report.memory_format == "channels_last"
    assert report.lost == ""  # nothing was asked for that could not be had
    assert 0 <= report.difference < 1e-5
    lines = str(report).splitlines()
    assert lines[0].split() == [
        *("layer", "was", "computed", "as", "BatchNorms", "folded", "ms", "by", "form")
    ]
    assert "factored 2, joined 3, narrow 1, merged 4" in lines[3]
    assert lines[-1].startswith(
        "2x3x48x48 in float32, channels_last, eager: 30 ms before, 10 ms after "
        "(3.0 times as fast); 2 BatchNorms folded; outputs equal to "
    )
    assert report._repr_html_().startswith("<table>")


def test_convolutions_that_took_in_a_norm_are_in_the_report() -> None:
    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    (row,) = eager(model).report.layers
    assert (row.name, row.kind, row.form, row.norms_folded) == ("0", "Conv2d", "one convolution", 1)


# --- wrong inputs ---------------------------------------------------------------------------------


class Failing(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("\nonly this line\nand not this one")


def test_wrong_arguments() -> None:
    images, model = torch.randn(IMAGES), small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and still met
        scripted = torch.jit.trace(nn.ReLU(), images)
    half_on_meta = nn.Conv2d(3, 3, 3)
    half_on_meta.bias = nn.Parameter(torch.empty(3, device="meta"))
    uncopied = small()
    uncopied.lock = threading.Lock()  # type: ignore[assignment]
    cases: list[tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = [
        (TypeError, "model needs to be a torch.nn.Module, got a str", ("resnet18", images), {}),
        (TypeError, "example_input needs to be a tensor, got a tuple", (model, IMAGES), {}),
        (
            *(ValueError, "example_input needs floating-point numbers, got torch.int64"),
            *((model, images.long()), {}),
        ),
        (
            ValueError,
            "dtype needs to be None or one of float64, float32, bfloat16, float16, got 8",
            *((model, images), {"dtype": 8}),
        ),
        (
            *(ValueError, "compile needs to be True, False or 'auto', got 'yes'"),
            *((model, images), {"compile": "yes"}),
        ),
        (
            *(ValueError, "model needs a size for weight: call it once, its layers are lazy"),
            *((nn.LazyConv2d(3, 3), images), {}),
        ),
        (
            *(ValueError, "model needs values for 0.bias, which is on the meta device"),
            *((nn.Sequential(half_on_meta), images), {}),
        ),
        (
            *(ValueError, "model needs values for running_mean, which is on the meta device"),
            *((nn.BatchNorm2d(3, affine=False, device="meta"), images), {}),
        ),
        (
            *(ValueError, "model needs to be optimised before it becomes TorchScript"),
            *((nn.Sequential(scripted), images), {}),
        ),
        (
            *(ValueError, "model returns no floating-point tensor"),
            *((Graph(lambda net, x: None), images), {}),
        ),
        (
            ValueError,
            "model does not take example_input of (2, 3, 48, 48): RuntimeError: only this line",
            *((Failing(), images), {}),
        ),
        (
            *(ValueError, "model cannot be copied: TypeError: cannot pickle '_thread.lock' object"),
            *((uncopied, images), {}),
        ),
    ]
    for error, message, arguments, options in cases:
        with raises_exactly(message, error):
            optimize_for_inference(*arguments, **{"compile": False} | options)


NOT_REPEATABLE = (
    "model is random in eval mode, or its outputs are not finite: two calls with example_input "
    "differ, so nothing can be said to equal it"
)


def test_a_model_that_is_random_in_eval_mode_is_refused() -> None:
    def noisy(net: Any, images: Tensor) -> Tensor:
        return nn.functional.dropout(net.conv1(images), training=True)

    with raises_exactly(NOT_REPEATABLE):
        eager(Graph(noisy))


def test_a_model_that_overflows_is_refused() -> None:
    with raises_exactly(NOT_REPEATABLE):
        eager(Graph(lambda net, images: net.conv1(images) / 0))


def test_a_result_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(pair: Any) -> None:
        pair.conv.weight.data *= 1.1

    monkeypatch.setattr(inference, "fold", wrong)
    message = (
        r"model cannot be optimised: the result differs from it by \d\.\de[+-]\d\d of its largest "
        "output, which is more than rounding"
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        eager(trained(Graph(in_turn)))


# --- collapse -------------------------------------------------------------------------------------


def test_collapse_gives_dense_convolutions() -> None:
    model = BSConvU_Replacer(exclude=("layer1", "layer3")).apply(
        torchvision.models.resnet18(num_classes=10)
    )
    model = trained(BSConvS_Replacer().apply(model))
    collapsed = collapse(model)
    assert not [module for module in collapsed.modules() if isinstance(module, (BSConvU, BSConvS))]
    assert [module for module in model.modules() if isinstance(module, BSConvU)]
    assert collapsed.training
    dense = torchvision.models.resnet18(num_classes=10).state_dict()
    state = collapsed.state_dict()
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in dense.items()
    }
    images = torch.randn(IMAGES)
    assert_equal(in_eval_mode(collapsed, images), in_eval_mode(model, images))


def test_collapse_names_what_stays_and_why() -> None:
    hooked = BSConvU(4, 4, 3)
    hooked.pw.register_forward_hook(lambda module, inputs, output: None)
    shared = BSConvU(4, 4, 1)
    model = nn.Sequential(
        OrderedDict(
            padded=BSConvU(3, 4, 3, padding=1, with_bn=True),
            unpadded=BSConvU(4, 4, 3, with_bn=True),
            hooked=hooked,
            shared=shared,
            again=shared,
            last=BSConvU(4, 4, 1),
        )
    )
    model = trained(model).eval()
    with pytest.warns(UserWarning, match="stay as they are") as caught:
        collapsed = collapse(model)
    assert [str(warning.message) for warning in caught] == [
        "layers that stay as they are: padded: BSConvU with BatchNorm before a zero-padded "
        "depthwise convolution equals no single convolution: its padding follows BatchNorm's "
        "shift, got padding=(1, 1); hooked: it is a subclass, or holds hooks or other modules than "
        "plain convolutions"
    ]
    kinds = [type(module).__name__ for module in collapsed]
    assert kinds == ["BSConvU", "Conv2d", "BSConvU", "Conv2d", "Conv2d", "Conv2d"]
    assert collapsed[3] is collapsed[4]
    images = torch.randn(IMAGES)
    assert_equal(collapsed(images), model(images))
    with pytest.warns(UserWarning, match="normalises by its batch"):
        collapse(model.train())


def test_warnings_of_collapse_point_at_the_caller() -> None:
    with pytest.warns(UserWarning, match="no BSConv layer") as caught:
        collapse(nn.ReLU())
    assert caught[0].filename == __file__


def test_collapse_of_a_root_and_of_nothing() -> None:
    root = BSConvU(3, 4, 3)
    collapsed = collapse(root)
    assert type(collapsed) is nn.Conv2d
    images = torch.randn(IMAGES)
    torch.testing.assert_close(collapsed(images), root(images))
    root.pw.register_forward_hook(lambda module, inputs, output: None)
    with pytest.warns(UserWarning, match=r"^layers that stay as they are: \(root\): it is a sub"):
        assert type(collapse(root)) is BSConvU
    with pytest.warns(UserWarning, match=r"^there is no BSConv layer$"):
        collapse(nn.ReLU())
    with pytest.raises(TypeError, match=r"^model needs to be a torch\.nn\.Module, got a str$"):
        collapse("resnet18")  # type: ignore[arg-type]
