"""Which blocks of MobileNets are known, and which of their layers do what.

A block is recognised by the full name of its class, so that no library is imported, and then read
by its layers, one letter each: it is changed only if it is built as expected.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple, cast

from torch import nn

from ..._tools.convs import pads_with_zeros
from ...modules import BSConvU

V1, V2, V3, EFFICIENT = "MobileNetV1", "MobileNetV2", "MobileNetV3", "EfficientNet"
FUSED = "fused EfficientNet"  # a dense convolution instead of expansion and depthwise: kept
BLOCKS: dict[str, tuple[str, ...]] = {  # the networks that a class of blocks makes up
    "bsconv.pytorch.models.mobilenet.DepthwiseSeparableBlock": (V1,),
    "bsconv.pytorch.models.mobilenet.LinearBottleneck": (V2, V3),
    "torchvision.models.mobilenetv2.InvertedResidual": (V2,),
    "torchvision.models.mobilenetv3.InvertedResidual": (V3,),
    "torchvision.models.efficientnet.MBConv": (EFFICIENT,),
    "torchvision.models.efficientnet.FusedMBConv": (FUSED,),
    "pytorchcv.models.common.conv.DwsConvBlock": (V1,),
    "pytorchcv.models.mobilenetv2.LinearBottleneck": (V2,),
    "pytorchcv.models.mobilenetv3.MobileNetV3Unit": (V3,),
    "pytorchcv.models.efficientnet.EffiDwsConvUnit": (EFFICIENT,),
    "pytorchcv.models.efficientnet.EffiInvResUnit": (EFFICIENT,),
    "pytorchcv.models.efficientnetedge.EffiEdgeResUnit": (FUSED,),
    "timm.models._efficientnet_blocks.DepthwiseSeparableConv": (V1, V2, V3, EFFICIENT),
    "timm.models._efficientnet_blocks.InvertedResidual": (V2, V3, EFFICIENT),
    "timm.models._efficientnet_blocks.EdgeResidual": (FUSED,),
}
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
ACTIVATIONS = (  # modules that hold nothing but activations
    "torch.nn.modules.activation",
    "pytorchcv.models.common.activ",
    "timm.layers.activations",
    "timm.layers.activations_me",
)
DROPS = ("Dropout", "DropPath", "StochasticDepth")

# d depthwise, p pointwise, n norm, N norm with activation, a activation, ~ what only drops
SEPARABLE = re.compile("d(na?|N)?p(na|N)~*")
LINEAR_BOTTLENECK = re.compile(".*d(.*[^p])?pn~*")


class SeparableLayers(NamedTuple):
    """A block of MobileNetV1: depthwise, pointwise, and ``tail``, the BatchNorm and activation."""

    depthwise: nn.Conv2d
    inner_norm: nn.BatchNorm2d | None
    pointwise: nn.Conv2d
    tail: tuple[nn.Module, ...]


def is_known(block: nn.Module) -> bool:
    return _known_class(block) in BLOCKS or is_blueprint_block(block)


def title(block: nn.Module) -> str:
    """What a known block is, such as "MobileNetV2 block (torchvision)"."""
    if is_blueprint_block(block):
        return "BSConv-U block"
    name = _known_class(block)
    networks = BLOCKS[name]
    if len(networks) > 1 and not isinstance(layers := read(block), str):
        is_separable = isinstance(layers, SeparableLayers)
        networks = tuple(network for network in networks if (network == V1) == is_separable)
    listed = "/".join(networks).replace("/MobileNet", "/")
    return f"{listed} block ({name.partition('.')[0]})"


def is_blueprint_block(module: nn.Module) -> bool:
    """Whether ``module`` is what a block of MobileNetV1 becomes: BSConv-U, norm, activation."""
    if type(module) is not nn.Sequential or not 2 <= len(module) <= 3:
        return False
    return isinstance(module[0], BSConvU) and isinstance(module[1], NORMS)


def known() -> str:
    """The networks whose blocks are known, and the libraries that these are of."""
    libraries = dict.fromkeys(name.partition(".")[0] for name in BLOCKS)
    return f"{', '.join((V1, V2, V3, EFFICIENT))} of {', '.join(libraries)}"


def read(block: nn.Module) -> SeparableLayers | nn.Conv2d | str:
    """The layers of a block, its linear projection, or a string: why BSConv does not change it."""
    steps = list(_steps(block))
    letters = "".join(map(_letter, steps))
    if "d" not in letters:
        return "it has no depthwise Conv2d"
    if LINEAR_BOTTLENECK.fullmatch(letters):
        return cast(nn.Conv2d, steps[letters.rindex("p")])
    if not SEPARABLE.fullmatch(letters):
        return "it is not depthwise, then pointwise, and its last Conv2d is not a linear projection"
    if _full_name(type(block)) not in BLOCKS or "forward" in vars(block):
        return "it may compute something other than its class"
    if getattr(block, "has_skip", False):
        return "it adds its input, and has an activation before that"
    middle = letters.index("p")
    norm = steps[1] if middle > 1 else None
    tail = [step for step in steps[middle + 1 :] if _letter(step) != "~"]
    return SeparableLayers(steps[0], norm, steps[middle], tuple(tail))  # type: ignore[arg-type]


def _known_class(block: nn.Module) -> str:
    return next((name for name in map(_full_name, type(block).__mro__) if name in BLOCKS), "")


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _steps(module: nn.Module) -> Iterator[nn.Module]:
    """Convolutions, norms and what else has no children; known blocks register them in order."""
    for child in module._modules.values():
        if child is None or isinstance(child, nn.Identity):
            continue
        if isinstance(child, nn.Conv2d) or _is_norm(child) or not child._modules:
            yield child
        else:
            yield from _steps(child)


def _letter(step: nn.Module) -> str:
    if isinstance(step, nn.Conv2d):
        if step.kernel_size == step.stride == (1, 1) and step.groups == 1:
            return "c" if pads_with_zeros(step) else "p"
        return "d" if step.groups == step.in_channels == step.out_channels else "c"
    if _is_norm(step):
        return "N" if any(map(_is_activation, step.children())) else "n"
    if _is_activation(step):
        return "a"
    return "~" if type(step).__name__ in DROPS else "x"


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, NORMS) or type(module).__name__.startswith("FrozenBatchNorm")


def _is_activation(module: nn.Module) -> bool:
    return any(cls.__module__ in ACTIVATIONS for cls in type(module).__mro__)
