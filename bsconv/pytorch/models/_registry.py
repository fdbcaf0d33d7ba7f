"""From a name to a network."""

from functools import partial

from ..modules import bsconv_s, bsconv_u
from ._blocks import ConvLayer, ImageClassifier, dense_conv
from ._names import ModelName, parse_name
from .resnet import resnet


def get_model(
    architecture: str, num_classes: int, *, pretrained: str | None = None
) -> ImageClassifier:
    """The network of that name, freshly initialised (:func:`list_models` lists names).

    Dense convolutions start Kaiming-uniform, BSConv layers as PyTorch starts convolutions, the
    classifier Xavier-normal. No input normalisation is needed: a BatchNorm comes first.

    Raises ValueError for an unknown name, for num_classes < 1, and for ``pretrained`` weights that
    do not exist; this release ships none.
    """
    name = parse_name(architecture)
    if num_classes < 1:
        raise ValueError(f"num_classes needs to be at least 1, got num_classes={num_classes}")
    if pretrained is not None:
        raise ValueError(f"there are no weights pretrained={pretrained!r} for '{architecture}'")
    return resnet(
        name.blocks,
        num_classes,
        cifar=name.is_cifar,
        preactivated=name.is_preactivated,
        width=name.width,
        conv=_conv_layer(name),
    )


def _conv_layer(name: ModelName) -> ConvLayer:
    if name.variant == "u":
        return bsconv_u
    if name.variant == "s":
        return partial(bsconv_s, p=name.p, with_bn=True)
    return dense_conv
