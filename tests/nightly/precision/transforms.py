"""What makes layers and models of others: approximation, replacement, folding, whole networks."""

from __future__ import annotations

from typing import cast

import torch
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
from bsconv.pytorch.decomposition import (
    blueprint_factors,
    compose,
    shared_factors,
    subspace_factors,
)

from .comparison import case
from .inputs import KINDS, channels, numbers
from .layers import fill

ALL = tuple(KINDS)
SOME = ("ordinary", "tiny", "huge", "largest", "zero", "rank-deficient", "mixed scales")
BEYOND = ("huge", "largest")
Results = dict[str, Tensor]


def kernel(kind: str, many: int) -> Tensor:
    """Of a few filters, where there are many channels."""
    count = channels(kind, many)
    return numbers(kind, min(count, 16), count, 3, 3)


def dense(kind: str, many: int) -> nn.Conv2d:
    """A dense convolution with such a kernel."""
    weight = kernel(kind, many)
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    fill(conv, kind)
    return conv


def images_for(count: int, dtype: torch.dtype) -> Tensor:
    """Three ordinary images of so many channels."""
    return numbers("ordinary", 3, count, 6, 6, seed=1).to(dtype)


@case(
    "blueprint_factors, composed",
    "blueprint_factors",
    "BlueprintFactors",
    by_rows=("kernel",),
    overflows=("largest",),
)
def blueprint_kernel(kind: str, dtype: torch.dtype, many: int) -> Results:
    factors = blueprint_factors(kernel(kind, many).to(dtype))
    return {"kernel": compose(factors.weights.to(dtype), factors.blueprints.to(dtype))}


@case(
    "subspace_factors, composed",
    "subspace_factors",
    "SubspaceFactors",
    by_rows=("kernel",),
    overflows=("largest",),
)
def subspace_kernel(kind: str, dtype: torch.dtype, many: int) -> Results:
    weight = kernel(kind, many).to(dtype)
    factors = subspace_factors(weight, max(1, min(weight.shape[:2]) // 2))
    mixing, basis, blueprints = (factor.to(dtype) for factor in factors)
    return {"kernel": compose(mixing @ basis, blueprints), "basis": basis @ basis.T}


@case("compose", "compose", by_rows=("kernel",), overflows=BEYOND)
def composed(kind: str, dtype: torch.dtype, many: int) -> Results:
    weights, blueprints = kernel(kind, many)[:, :, 0, 0], numbers("ordinary", 16, 1, 3, 3)[:, 0]
    return {"kernel": compose(weights.to(dtype), blueprints[: len(weights)].to(dtype))}


@case("shared_factors", "shared_factors", "SharedFactors", overflows=("largest",))
def shared_kernel(kind: str, dtype: torch.dtype, many: int) -> Results:
    """Of few channels: fits of many take long."""
    weight = numbers(kind, 6, min(channels(kind, many), 6), 3, 3).to(dtype)
    mixing, weights, blueprints = (factor.to(dtype) for factor in shared_factors(weight, 3))
    return {"kernel": torch.einsum("nr,rm,rij->nmij", mixing, weights, blueprints)}


@case("BSConvU.from_conv2d, to_conv2d", "BSConvU", by_rows=("weight",), overflows=("largest",))
def approximated_u(kind: str, dtype: torch.dtype, many: int) -> Results:
    return _weights(BSConvU.from_conv2d(dense(kind, many).to(dtype)).to_conv2d())


@case("BSConvS.from_conv2d, to_conv2d", "BSConvS", by_rows=("weight",), overflows=("largest",))
def approximated_s(kind: str, dtype: torch.dtype, many: int) -> Results:
    share = 0.5 if kind != "many channels" else 1 / 64
    return _weights(BSConvS.from_conv2d(dense(kind, many).to(dtype), p=share).to_conv2d())


@case("to_conv2d", "BSConvU", "BSConvS", overflows=BEYOND)
def as_dense(kind: str, dtype: torch.dtype, many: int) -> Results:
    """The one convolution for each layer, with BatchNorms in it where nothing is padded."""
    count = channels(kind, many)
    found = {}
    for norm in (False, True):
        for make in (BSConvU, BSConvS):
            layer = make(count, min(count, 64), 3, with_bn=norm)
            fill(layer, kind)
            conv = layer.to(dtype).eval().to_conv2d()
            found[f"weight {make.__name__} {norm}"] = conv.weight
            if conv.bias is not None:
                found[f"bias {make.__name__} {norm}"] = conv.bias
    return found


def _weights(conv: nn.Conv2d) -> Results:
    return {"weight": conv.weight}


def network(kind: str) -> nn.Sequential:
    """Two convolutions with BatchNorms; the first has weights of that kind."""
    first, second = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    layers = (first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.BatchNorm2d(8))
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    fill(model, "ordinary")
    fill(first, kind)
    return model.eval()


@case(
    "replacers from dense weights",
    "BSConvU_Replacer",
    "BSConvS_Replacer",
    kinds=SOME,
    overflows=BEYOND,
)
def replaced(kind: str, dtype: torch.dtype, many: int) -> Results:
    found = {}
    for replacer in (BSConvU_Replacer(init="project"), BSConvS_Replacer(init="project", p=0.5)):
        model = replacer.apply(network(kind).to(dtype))
        outputs = model(images_for(4, dtype))
        found[f"outputs {replacer.layer_class.__name__}"] = outputs
    return found


@case("collapse", "collapse", kinds=SOME, overflows=BEYOND)
def collapsed(kind: str, dtype: torch.dtype, many: int) -> Results:
    model = collapse(_blueprint_network(kind).to(dtype))
    return {"outputs": model(images_for(8, dtype))}


@case(
    "optimize_for_inference",
    "optimize_for_inference",
    "OptimizedModel",
    kinds=SOME,
    overflows=BEYOND,
)
def optimised(kind: str, dtype: torch.dtype, many: int) -> Results:
    images = images_for(8, dtype)
    model = _blueprint_network(kind, norm=True).to(dtype)
    return {"outputs": optimize_for_inference(model, images, compile=False)(images)}


def _blueprint_network(kind: str, norm: bool = False) -> nn.Sequential:
    first, second = BSConvU(8, 8, 3, padding=1), BSConvS(8, 8, 3, padding=1, with_bn=norm)
    model = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), second)
    fill(model, "ordinary")
    fill(first.pw, kind)
    return model.eval()


@case(
    "modify_mobilenet",
    "modify_mobilenet",
    "MobileNetModifier",
    kinds=SOME,
    by_rows=("outputs",),
    overflows=BEYOND,
)
def modified(kind: str, dtype: torch.dtype, many: int) -> Results:
    """A block of MobileNetV1 as BSConv-U, from weights of that kind in its 1x1 convolution.

    Before its ReLU, which makes a finite number of minus infinity.
    """
    model = get_model("cifar_mobilenetv1_w1d4", 10).eval()
    fill(model, "ordinary")
    name = next(name for name, module in model.named_modules() if name.endswith("unit2"))
    pointwise = [m for m in model.get_submodule(name).modules() if isinstance(m, nn.Conv2d)][-1]
    fill(pointwise, kind)
    with torch.no_grad():
        block = cast(nn.Sequential, modify_mobilenet(model.to(dtype)).get_submodule(name))[:2]
        channels = cast(BSConvU, block[0]).in_channels
        return {"outputs": block(images_for(channels, dtype)).transpose(0, 1)}


@case(
    "get_model",
    "get_model",
    kinds=tuple(kind for kind in ALL if "channel" not in kind and kind != "largest"),
    bounds={"subnormal": 0.0001},
)
def whole(kind: str, dtype: torch.dtype, many: int) -> Results:
    """Networks of the paper, on images of that kind."""
    found = {}
    for name in ("cifar_resnet20_bsconvu", "cifar_resnet20_bsconvs_p1d4", "cifar_mobilenetv2_w1d4"):
        torch.manual_seed(0)
        model = get_model(name, 10).to(dtype).eval()
        with torch.no_grad():
            found[name] = model(numbers(kind, 2, 3, 32, 32, mixed=1).to(dtype))
    return found
