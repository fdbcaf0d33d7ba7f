"""Which BatchNorms go into convolutions, and that the model computes the same."""

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from bsconv.pytorch import BSConvS, BSConvU, collapse, optimize_for_inference
from bsconv.pytorch.inference import OptimizedModel
from bsconv.pytorch.inference._folding import foldable_pairs
from bsconv.pytorch.regularization import OrthonormalConv2d
from helpers.inference_cases import (
    Graph,
    assert_equal,
    assert_same_function,
    conv_and_norm,
    eager,
    in_eval_mode,
    in_turn,
    trained,
)
from helpers.model_snapshots import assert_unchanged, snapshot

SIZE = (2, 3, 10, 10)


def assert_folded(model: nn.Module, norms: int, size: tuple[int, ...] = SIZE) -> OptimizedModel:
    """So many BatchNorms are folded, and the model computes the same."""
    optimized = eager(model, size)
    assert optimized.report.norms_folded == norms
    assert_same_function(optimized, model, size)
    return optimized


def also_used_elsewhere(net: Any, images: Tensor) -> Tensor:
    raw = net.conv1(images)
    return raw + net.norm2(net.conv2(net.norm1(raw)))


def depends_on_values(net: Any, images: Tensor) -> Tensor:
    normed = net.norm1(net.conv1(images))
    return net.norm2(net.conv2(normed)) if normed.mean() > 1e6 else normed * 2


class Deciding(nn.Sequential):
    """Cannot be followed: values decide what it computes, behind its parts."""

    def forward(self, images: Tensor) -> Tensor:
        images = super().forward(images)
        return images if images.mean() < 1e6 else images * 2


class Reaching(nn.Module):
    """Calls a part of a part, too."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Graph(in_turn)

    def forward(self, images: Tensor) -> Tensor:
        images = self.part(images) if images.mean() < 1e6 else images
        return self.part.conv1(images)


def around_what_cannot_be_followed() -> nn.Module:
    inner = Deciding(nn.Sequential(*conv_and_norm(), nn.ReLU()))
    return nn.Sequential(*conv_and_norm(), inner, *conv_and_norm())


def between() -> nn.Module:
    conv, norm = conv_and_norm()
    return nn.Sequential(conv, Deciding(nn.ReLU()), norm)


@pytest.mark.parametrize(
    ("make", "norms"),
    [
        (lambda: Graph(in_turn), 2),
        (lambda: Graph(also_used_elsewhere), 1),
        # norm1 called twice, after an activation, before a convolution
        (lambda: Graph(lambda g, x: g.norm2(g.conv2(g.norm1(g.conv1(g.norm1(g.conv1(x))))))), 1),
        (lambda: Graph(lambda g, x: g.norm2(g.conv2(g.norm1(g.conv1(x).relu())))), 1),
        (lambda: Graph(lambda g, x: g.conv2(g.norm2(g.conv1(g.norm1(x))))), 1),
        (lambda: Graph(depends_on_values), 0),
        (lambda: Deciding(Graph(in_turn), Graph(in_turn)), 4),
        (around_what_cannot_be_followed, 3),
        (between, 0),
        (Reaching, 1),
    ],
)
def test_only_what_follows_a_convolution_alone_is_folded(make: Any, norms: int) -> None:
    assert_folded(trained(make()), norms)


def test_a_part_in_two_places_is_folded_once() -> None:
    part = nn.Sequential(*conv_and_norm())
    model = trained(Deciding(Deciding(part), part))
    assert_same_function(eager(model, SIZE), model, SIZE)
    once = Deciding(part)
    once.spare = nn.ModuleList([part])
    once.forward = lambda images: part(images)  # type: ignore[method-assign]
    assert len(foldable_pairs(once.eval(), torch.randn(1, 3, 8, 8))) == 1


class Doubling(nn.Conv2d):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * 2


class OwnU(BSConvU):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 1


@pytest.mark.parametrize(
    ("layer", "folded"),
    [
        (nn.Conv2d(4, 4, 3, groups=2), 1), (nn.Conv2d(4, 4, 3, groups=4, bias=False), 1),
        (OrthonormalConv2d(4, 4, 1), 1), (BSConvU(4, 4, 3), 1),
        (BSConvS(4, 4, 3, with_bn=True, bias=False), 3),
        (Doubling(4, 4, 3), 0), (OwnU(4, 4, 3), 0), (nn.ConvTranspose2d(4, 4, 3), 0),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)), 0),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_norms_go_into_plain_convolutions_and_bsconv_layers(layer: nn.Module, folded: int) -> None:
    model = trained(nn.Sequential(layer, nn.BatchNorm2d(4)))
    pairs = foldable_pairs(model.eval(), torch.randn(1, 4, 8, 8))
    assert pairs == ([(layer, model[1])] if folded else [])
    assert_folded(model, folded, (2, 4, 8, 8))


def test_bsconv_layers_with_a_forward_of_their_own_stay() -> None:
    patched, within = BSConvU(4, 4, 3), BSConvU(4, 4, 3)
    patched.forward = lambda images: images[:, :, 1:-1, 1:-1] * 2  # type: ignore[method-assign]
    within.pw.forward = lambda images: images * 3  # type: ignore[method-assign]
    model = trained(nn.Sequential(OwnU(4, 4, 3), nn.BatchNorm2d(4), patched, within)).eval()
    plans = [row.plan for row in assert_folded(model, 0, (2, 4, 16, 16)).report.layers]
    assert plans == ["as it is: a subclass, hooks or other layers in it"] * 3
    with pytest.warns(UserWarning, match=r"0: it is a subclass.*; 2: it is a s.*; 3: it is a s"):
        collapsed = collapse(model)
    images = torch.randn(2, 4, 16, 16)
    assert_equal(collapsed(images), model(images))


@pytest.mark.parametrize("where", ["0", "0.dw", "0.pw", "1"])
def test_norms_with_hooks_around_them_stay(where: str) -> None:
    model = trained(nn.Sequential(BSConvU(4, 4, 3), nn.BatchNorm2d(4)))
    model.get_submodule(where).register_forward_hook(lambda module, inputs, output: output * 2)
    pairs = foldable_pairs(model.eval(), torch.randn(1, 4, 8, 8))
    # a hook on pw is no obstacle: nothing is folded into that
    assert len(pairs) == (where == "0.pw")
    assert_folded(model, len(pairs), (2, 4, 8, 8))


def test_batch_statistics_and_hooks_stay() -> None:
    model = Graph(in_turn)
    model.norm1 = nn.BatchNorm2d(3, track_running_stats=False)
    model.conv2.register_forward_hook(lambda module, inputs, output: output * 2)
    assert_folded(trained(model), 0)


def test_tied_weights_are_untied_where_one_is_folded() -> None:
    model = Graph(in_turn)
    model.conv2.weight = model.conv1.weight
    assert_folded(trained(model), 2)


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
    assert eager(model, (1, 3, 8, 8)).report.layers[0].plan == "factored"


def test_pairs_are_found_without_a_trace() -> None:
    model = trained(torchvision.models.resnet18(num_classes=5)).eval()
    before = snapshot(model)
    assert len(foldable_pairs(model, torch.randn(1, 3, 32, 32))) == 20
    assert_unchanged(model, before)


@pytest.mark.parametrize(
    ("used", "gone"),
    [(lambda own: own.norm.running_mean.sum(), "running_mean"), (lambda own: own.conv.pw, "pw")],
)
def test_a_model_that_uses_parts_of_its_layers_stays_as_it_is(used: Any, gone: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = BSConvU(3, 8, 3, with_bn=True), nn.BatchNorm2d(8)

        def forward(self, images: Tensor) -> Tensor:
            part = used(self)
            return self.norm(self.conv(images)) + (part if isinstance(part, Tensor) else 0)

    images = torch.randn(2, 3, 8, 8)
    model = trained(Net())
    optimized = optimize_for_inference(model, images, engines="eager")
    assert gone in optimized.report.layers[0].plan
    assert_equal(optimized(images), in_eval_mode(model, images))
