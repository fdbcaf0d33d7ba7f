"""From a name to a network."""

from collections.abc import Callable
from functools import partial

from ..initialization import dense_conv, match_variance_, uninitialized
from ..modules import BSConvS, BSConvU, bsconv_s, bsconv_u
from ..regularization import OrthonormalConv2d
from ._blocks import ConvLayer, ImageClassifier
from ._names import ModelName, parse_name
from ._weights import trained_weights
from .mobilenet import TABLES, DepthwiseSeparableBlock, blueprint_block, mobilenet
from .resnet import resnet

INITS = ("default", "published", "matched")  # the first two are the same

penalised_conv = partial(dense_conv, conv_class=OrthonormalConv2d)


def get_model(
    architecture: str, num_classes: int, *, pretrained: str | None = None, init: str = "default"
) -> ImageClassifier:
    """The network called ``architecture``, freshly initialised (:func:`list_models` lists names).

    Images (B, 3, H, W) to logits (B, num_classes). No input normalisation is needed: a BatchNorm
    comes first. ``model.reg_loss(alpha=0.1)`` is the penalty of the BSConv-S variants.

    Args:
        pretrained: the data set of weights that come with the package, None for fresh ones:
            "cifar10", for cifar_resnet20, cifar_wrn16_1 and two BSConv variants of the latter, with
            10 classes.
        init: how BSConv layers start; dense convolutions start Kaiming-uniform and the classifier
            Xavier-normal with either. "default", also called "published": as PyTorch starts
            convolutions, which is what bsconv 0.4.0 did, and what does better. "matched": with the
            output variance of the dense convolution that they stand for
            (:func:`bsconv.pytorch.initialization.match_variance_`).

    Raises ValueError for an unknown name, for num_classes < 1, for another ``init``, for
    ``pretrained`` weights that do not exist or have other classes, and for a damaged weight file.
    Raises ImportError if ``pretrained`` is given and safetensors is not installed.
    """
    name = parse_name(architecture)
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes needs to be at least 1, got num_classes={num_classes!r}")
    if init not in INITS:
        raise ValueError(f"init needs to be 'default' or 'matched', got init={init!r}")
    if pretrained is None:
        return _build(name, num_classes, init)
    weights = trained_weights(architecture, pretrained, num_classes)
    model = _build(name, num_classes, init)
    model.load_state_dict(weights)
    return model


def _build(name: ModelName, num_classes: int, init: str) -> ImageClassifier:
    conv = _conv_layer(name, init)
    if name.is_mobilenet:
        return mobilenet(
            TABLES[name.family],
            num_classes,
            cifar=name.is_cifar,
            width=name.width,
            separable_block=(
                partial(blueprint_block, conv=conv) if name.variant else DepthwiseSeparableBlock
            ),
            projection_conv=penalised_conv if name.variant == "s" else dense_conv,
        )
    return resnet(
        name.blocks,
        num_classes,
        cifar=name.is_cifar,
        preactivated=name.is_preactivated,
        width=int(name.width),
        conv=conv,
    )


def _conv_layer(name: ModelName, init: str) -> ConvLayer:
    if not name.variant:
        return dense_conv
    conv: Callable[..., BSConvU | BSConvS] = bsconv_u
    if name.variant == "s":
        conv = partial(bsconv_s, p=name.p, with_bn=True)
    if init != "matched":
        return conv
    return lambda *args, **kwargs: match_variance_(uninitialized(conv, *args, **kwargs))
