"""A model by its name: of this package, of torchvision or of pytorchcv, replaced if asked."""

import difflib
import functools
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from ..pytorch import BSConvS_Replacer, BSConvU_Replacer, get_model
from ..pytorch.models import ModelName, parse_name
from .normalization import STATISTICS

# the data that the module docstrings of pytorchcv's classification models name
CLASSIFICATION_DATA = ("ImageNet-1K", "CIFAR", "CUB-200-2011")
# docstrings that do so too: of an object detector, and of a network that returns a tuple
NO_CLASSIFIERS = ("centernet", "ntsnet_cub")


@functools.cache
def architecture(name: str) -> ModelName | None:
    """What ``name`` says if it is an architecture of this package; None for any other model."""
    try:
        return parse_name(name)
    except ValueError:
        return None


def build_model(
    name: str,
    num_classes: int,
    *,
    bsconv: Literal["u", "s"] | str | None = None,
    p: float = 0.25,
    with_bn: bool = False,
    init: str = "published",
    pretrained: str | None = None,
) -> nn.Module:
    """The classification model ``name`` with ``num_classes`` outputs.

    ``name`` is an architecture of :func:`bsconv.pytorch.list_models`, ``torchvision:NAME`` or
    ``pytorchcv:NAME``; the latter two start from random weights. ``bsconv`` replaces the
    convolutions by BSConv-U or BSConv-S, with ``p`` (S only) and ``with_bn`` as in the replacers.
    ``init`` ("published" or "matched") and ``pretrained`` are those of
    :func:`bsconv.pytorch.get_model`.
    """
    if num_classes < 1:
        raise ValueError(f"a classifier needs num_classes >= 1, got {num_classes=}")
    start = "default" if init == "published" else init
    replacer: BSConvU_Replacer | BSConvS_Replacer | None = None
    if bsconv == "u":
        replacer = BSConvU_Replacer(with_bn=with_bn, init=start)
    elif bsconv == "s":
        replacer = BSConvS_Replacer(p=p, with_bn=with_bn, init=start)
    elif bsconv is not None:
        raise ValueError(f"bsconv needs to be 'u', 's' or None, got {bsconv=}")
    own = architecture(name)
    if replacer is not None and own is not None and own.variant:
        raise ValueError(
            f"{name} is a BSConv network already: take it without bsconv={bsconv!r}, "
            f"or replace in {own.dense}"
        )

    source, separator, inner = name.partition(":")
    if not separator:
        model = _own(name, num_classes, pretrained, init)
    elif source not in MAKERS:
        known = " or ".join(f"{known}:NAME" for known in MAKERS)
        raise ValueError(f"unknown source {source!r} in {name!r}: models come from {known}")
    elif pretrained is not None:
        raise ValueError(
            f"pretrained weights are those of this package's architectures, "
            f"not of {name}, got {pretrained=}"
        )
    else:
        model = MAKERS[source](inner, num_classes)
    return model if replacer is None else replacer.apply(model)


def foreign_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of the images that a library trains its model ``name`` on.

    None for architectures of this package, which take images as they are.
    """
    source, separator, inner = name.partition(":")
    if not separator or source not in MAKERS:
        return None
    if source == "torchvision":
        found = _import("torchvision.models").get_model_weights(inner).DEFAULT.transforms()
        return tuple(found.mean), tuple(found.std)
    if source == "pytorchcv" and inner.endswith(("_cifar10", "_cifar100", "_svhn")):
        return (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    return STATISTICS["imagenet"]


def _own(name: str, num_classes: int, pretrained: str | None, init: str) -> nn.Module:
    try:
        return get_model(name, num_classes, pretrained=pretrained, init=init)
    except ValueError as error:
        there = importlib.util.find_spec("torchvision") is not None
        if architecture(name) is None and there and name in _torchvision_names():
            raise ValueError(f"{error}; torchvision has one: torchvision:{name}") from error
        raise


def _torchvision_names() -> list[str]:
    """Classifiers only."""
    models = _import("torchvision.models")
    names: list[str] = models.list_models(module=models)
    return names


def _torchvision(name: str, num_classes: int) -> nn.Module:
    _check_name("torchvision", name, _torchvision_names())
    arguments: dict[str, bool] = {}
    if name in ("googlenet", "inception_v3"):
        # no second output while training; init_weights=None warns that its default will change
        arguments = {"aux_logits": False, "init_weights": True}
    models = _import("torchvision.models")
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **arguments)
    return model


@functools.cache
def _pytorchcv_names() -> tuple[str, ...]:
    """Classifiers only: the first sentence of a module names the data that its models are for."""
    names = []
    for name, make in vars(_import("pytorchcv.model_provider")).items():
        module = getattr(make, "__module__", "")
        if isinstance(make, types.FunctionType) and module.startswith("pytorchcv.models."):
            purpose = (sys.modules[module].__doc__ or "").partition("Original")[0]
            if not module.endswith(NO_CLASSIFIERS) and any(
                d in purpose for d in CLASSIFICATION_DATA
            ):
                names.append(name)
    return tuple(names)


def _pytorchcv(name: str, num_classes: int) -> nn.Module:
    _check_name("pytorchcv", name, _pytorchcv_names())
    make = getattr(_import("pytorchcv.model_provider"), name)
    try:
        model = make(num_classes=num_classes, pretrained=False)
    except AssertionError:  # some CIFAR models insist on 10 or 100 classes
        model = make(pretrained=False)
        model.output = nn.Linear(model.output.in_features, num_classes)
        model.num_classes = num_classes
    classifier: nn.Module = model
    return classifier


MAKERS = {"torchvision": _torchvision, "pytorchcv": _pytorchcv}


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        source = module.partition(".")[0]
        raise ValueError(
            f"models of {source} need the package {source}: pip install 'bsconv[notebooks]'"
        ) from error


def _check_name(source: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        nearest = difflib.get_close_matches(name.lower(), known)
        hint = " or ".join(f"{source}:{near}" for near in nearest)
        question = f"did you mean {hint}?" if hint else f"it has {source}:resnet18, for example"
        raise ValueError(f"{source} has no classification model {name!r}; {question}")
