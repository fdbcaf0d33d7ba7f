"""Optimised models against the originals in eval mode; wrong inputs; the report."""

import itertools
import threading
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from bsconv.pytorch import (
    BSConvS_Replacer,
    BSConvU_Replacer,
    get_model,
    modify_mobilenet,
    optimize_for_inference,
)
from bsconv.pytorch._tools.joining import normed
from bsconv.pytorch.inference import _folding
from helpers.exact_errors import raises_exactly
from helpers.inference_cases import (
    IMAGES,
    Graph,
    assert_same_function,
    eager,
    in_turn,
    small,
    trained,
)

LARGER = (2, 3, 48, 48)
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
@pytest.mark.parametrize(
    ("name", "replace"),
    [
        *itertools.product(["resnet18", "resnet34", "vgg16_bn", "densenet121"], REPLACERS),
        *((name, "modified") for name in ("mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0")),
    ],
)
def test_models_of_torchvision(name: str, replace: str) -> None:
    change = modify_mobilenet if replace == "modified" else REPLACERS[replace]
    model = trained(change(of_torchvision(name)))
    optimized = eager(model, LARGER)
    assert_same_function(optimized, model, LARGER)
    left = [module for module in optimized.modules() if isinstance(module, nn.BatchNorm2d)]
    # a DenseNet normalises before its convolutions: a third of its BatchNorms follow none
    assert len(left) == (62 if name == "densenet121" else 0)


@pytest.mark.parametrize("name", [
    "cifar_resnet20_bsconvs_p1d4", "cifar_mobilenetv1_w1d4_bsconvu",
    "cifar_mobilenetv3_small_w1d2", "cifar_preresnet20_bsconvu",
])  # fmt: skip
def test_models_by_name(name: str) -> None:
    model = trained(get_model(name, 10))
    assert_same_function(eager(model, (2, 3, 32, 32)), model, (2, 3, 32, 32))


def test_the_report(times: Any) -> None:
    times.seconds |= {"factored": 0.002, "joined": 0.003, "narrow": 0.001, "merged": 0.004}
    times.seconds |= {"given": 0.03, "eager": 0.01}
    report = eager(small()).report
    assert [(row.name, row.kind, row.plan, row.norms_folded) for row in report.layers] == [
        ("0", "BSConvU", "factored", 2),
        ("3", "BSConvS", "narrow", 0),
    ]
    assert report.layers[0].seconds == {"factored": 0.002, "merged": 0.004}
    assert (report.engine, report.norms_folded, report.seconds) == ("eager", 2, 0.01)
    assert (report.seconds_of("eager"), report.seconds_of("compiled")) == (0.01, None)
    assert (report.memory_format, report.lost) == ("channels_last", "")
    assert 0 <= report.difference < 1e-5
    assert report.setup_seconds == report.engines[1].setup_seconds > 0
    lines = str(report).splitlines()
    assert [line.split()[:2] for line in lines[:4:2]] == [["engine", "ms"], ["given", "30"]]
    assert lines[3].split() == ["eager", "10", f"{report.setup_seconds:.1f}", "taken"]
    assert " ".join(lines[5].split()) == "layer was computed as BatchNorms folded ms by plan"
    assert "factored 2, joined 3, narrow 1, merged 4" in lines[8]
    assert lines[-1].startswith(
        "2x3x20x20 in float32, channels_last, eager: 30 ms before, 10 ms after "
        "(3.0 times as fast); 2 BatchNorms folded; outputs equal to "
    )
    assert report._repr_html_().count("<table>") == 2


def test_convolutions_that_took_in_a_norm_are_in_the_report() -> None:
    (row,) = eager(trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))).report.layers
    assert (row.name, row.kind, row.plan, row.norms_folded) == ("0", "Conv2d", "one convolution", 1)


def fail(net: Any, images: Tensor) -> Tensor:
    raise RuntimeError("\nonly this line\nand not this one")


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")  # deprecated, and still met
def test_wrong_arguments() -> None:
    images, model = torch.randn(IMAGES), small()
    scripted = nn.Sequential(torch.jit.trace(nn.ReLU(), images))
    half_on_meta = nn.Conv2d(3, 3, 3)
    half_on_meta.bias = nn.Parameter(torch.empty(3, device="meta"))
    uncopied = small()
    uncopied.lock = threading.Lock()  # type: ignore[assignment]
    lazy, batch_norm = nn.LazyConv2d(3, 3), nn.BatchNorm2d(3, affine=False, device="meta")
    silent, on_meta = Graph(lambda net, x: None), nn.Sequential(half_on_meta)
    fails = Graph(fail), images
    locked = "cannot pickle '_thread.lock' object"
    cases = {
        "example_input needs floating-point numbers, got torch.int64": (model, images.long()),
        "example_input needs at least one image, got (0, 3, 20, 20)": (model, images[:0]),
        "model needs a size for weight: call it once, its layers are lazy": (lazy, images),
        "model needs values for 0.bias, which is on the meta device": (on_meta, images),
        "model needs values for running_mean, which is on the meta device": (batch_norm, images),
        "model needs to be optimised before it becomes TorchScript": (scripted, images),
        "model returns no floating-point tensor": (silent, images),
        "model does not take example_input of (2, 3, 20, 20): RuntimeError: only this line": fails,
        f"model cannot be copied: TypeError: {locked}": (uncopied, images),
    }
    for message, arguments in cases.items():
        with raises_exactly(message):
            optimize_for_inference(*arguments, compile=False)
    with raises_exactly("example_input needs to be a tensor, got a tuple", TypeError):
        optimize_for_inference(model, IMAGES)  # type: ignore[arg-type]
    with raises_exactly(
        "dtype needs to be None or one of float64, float32, bfloat16, float16, got 8"
    ):
        optimize_for_inference(model, images, dtype=8)  # type: ignore[arg-type]
    for order in (lambda net, x: net.conv1(x * 1e5) / 1e5, lambda net, x: net.conv1(x.float())):
        with pytest.raises(ValueError, match=r"^dtype needs to be one that the model computes in"):
            optimize_for_inference(Graph(order), images, dtype=torch.float16, engines="eager")
    with raises_exactly("compile needs to be True, False or 'auto', got 'yes'"):
        optimize_for_inference(model, images, compile="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "order",
    [
        lambda net, images: nn.functional.dropout(net.conv1(images), training=True),
        lambda net, images: net.conv1(images) / 0,
    ],
)
def test_a_model_that_is_random_or_overflows_is_refused(order: Any) -> None:
    with raises_exactly(
        "model is random in eval mode, or its outputs are not finite: two calls with example_input "
        "differ, so nothing can be said to equal it"
    ):
        eager(Graph(order))


def test_a_result_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
        folded = normed(conv, norm)
        folded.weight.data *= 1.1
        return folded

    monkeypatch.setattr(_folding, "normed", wrong)
    message = (
        r"model cannot be optimised: the result differs from it by \d\.\de[+-]\d\d of its largest "
        "output, which is more than rounding, unless it sorts: then rounding may change the order"
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        eager(trained(Graph(in_turn)))
