"""A model by its name: of this package, another library or the user's code, replaced if asked."""

import contextlib
import functools
import http.client
import importlib.util
import io
import math
import os
import sys
import types
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal

import torch
from torch import nn

from ..basics.errors import meant, one_line
from ..pytorch import BSConvS_Replacer, BSConvU_Replacer, get_model
from ..pytorch.models import ModelName, parse_name
from .normalization import STATISTICS, Normalization
from .own_code import made_by
from .rules import CLASS_COUNTS, IMAGENET_CLASSES, absolute_name

MOST_CLASSES = 10_000_000
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
    init: str = "default",
) -> nn.Module:
    """The classification model ``name`` with ``num_classes`` outputs.

    ``name`` is an architecture of :func:`bsconv.pytorch.list_models`; ``torchvision:NAME``,
    ``pytorchcv:NAME`` or ``timm:NAME``, with random weights; or ``FILE.py:FACTORY`` or
    ``package.module:FACTORY``: code of a user, which is run. ``bsconv``, ``p`` and ``with_bn`` are
    those of the replacers, ``init`` is theirs or that of :func:`bsconv.pytorch.get_model`.
    """
    if not 1 <= num_classes <= MOST_CLASSES:
        raise ValueError(f"num_classes needs 1 to {MOST_CLASSES:,}, got {num_classes:,}")
    name = absolute_name(name)
    replacer: BSConvU_Replacer | BSConvS_Replacer | None = None
    if bsconv == "u":
        replacer = BSConvU_Replacer(with_bn=with_bn, init=init)
    elif bsconv == "s":
        replacer = BSConvS_Replacer(p=p, with_bn=with_bn, init=init)
    elif bsconv is not None:
        raise ValueError(f"bsconv needs to be 'u', 's' or None, got {bsconv=}")
    own = architecture(name)
    if replacer is not None and own is not None and own.variant:
        ways = f"take it without bsconv={bsconv!r}, or replace in {own.dense}"
        raise ValueError(f"{name} is a BSConv network already: {ways}")

    source, separator, inner = name.partition(":")
    if not separator:
        model = _own(name, num_classes, init)
    elif source in MAKERS:
        model = MAKERS[source](inner, num_classes)
    else:
        model = made_by(name, num_classes)
    return model if replacer is None else replacer.apply(model)


def pretrained_model(name: str, pretrained: str) -> nn.Module:
    """The model ``name`` with trained weights, of as many classes as these have: those of the data
    set ``pretrained`` for an architecture of this package, else "DEFAULT" of its library, which are
    fetched if need be."""
    source, separator, inner = name.partition(":")
    if not separator:
        data = "cifar10" if pretrained == "DEFAULT" else pretrained
        return get_model(name, CLASS_COUNTS.get(data, IMAGENET_CLASSES), pretrained=data)
    if source not in MAKERS or pretrained != "DEFAULT":
        rule = "pretrained needs DEFAULT with the model of a library (--weights takes a file)"
        raise ValueError(f"{rule}, got {pretrained!r} with {name}")
    with contextlib.suppress(RuntimeError, NotImplementedError), torch.device("meta"):
        build_model(name, 10)  # refuses an unknown name before anything is fetched
    way_out = f"--weights FILE takes a file of weights of {name} instead"
    if os.environ.get("BSCONV_OFFLINE", "0") not in ("", "0"):
        raise ValueError(f"BSCONV_OFFLINE is set, so no weights are fetched; {way_out}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # which is for the command's own output
            if source == "torchvision":
                return import_module("torchvision.models").get_model(inner, weights="DEFAULT")
            if source == "timm":
                return import_module("timm").create_model(inner, pretrained=True)
            return getattr(import_module("pytorchcv.model_provider"), inner)(pretrained=True)
    # a bad checksum is a RuntimeError, a name without weights a ValueError
    except (OSError, RuntimeError, ValueError, EOFError, http.client.HTTPException) as error:
        reason = one_line(error, limit=None)
        raise ValueError(f"cannot get the weights of {name} ({reason}); {way_out}") from error


def foreign_images(name: str, model: Any) -> dict[str, Any]:
    """How a library makes the images for its weights of ``model``, called ``name``, as settings;
    nothing for architectures of this package, which take images as they are."""
    source, _, inner = name.partition(":")
    if source == "torchvision":
        found = import_module("torchvision.models").get_model_weights(inner).DEFAULT.transforms()
        (side,), (how,) = found.crop_size, found.resize_size
        filter = found.interpolation.value
    elif source == "timm":
        found = types.SimpleNamespace(**import_module("timm.data").resolve_model_data_config(model))
        side = found.input_size[-1]
        how = "squash" if found.crop_mode == "squash" else int(side / found.crop_pct)
        filter = found.interpolation
    elif source == "pytorchcv":
        found, side, filter = Normalization(*STATISTICS["imagenet"]), model.in_size[-1], "bilinear"
        how = math.ceil(side / 0.875)
        if side == 32:  # of CIFAR and SVHN
            found, how = Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)), side
    else:
        return {}
    normalization = {"mean": tuple(found.mean), "std": tuple(found.std)}
    resize = f"{how},{filter}".removesuffix(",bilinear")
    return {**normalization, "image_size": side, "resize": resize}


def _own(name: str, num_classes: int, init: str) -> nn.Module:
    try:
        return get_model(name, num_classes, init=init)
    except ValueError as error:
        if name.endswith(".py"):
            raise ValueError(f"{name} needs the function that makes it: {name}:FACTORY") from error
        there = importlib.util.find_spec("torchvision") is not None
        if architecture(name) is None and there and name in _torchvision_names():
            raise ValueError(f"{error}; torchvision has one: torchvision:{name}") from error
        raise


def _torchvision_names() -> list[str]:
    """Classifiers only."""
    models = import_module("torchvision.models")
    return list(models.list_models(module=models))


def _torchvision(name: str, num_classes: int) -> Any:
    _check_name("torchvision", name, _torchvision_names())
    arguments = {}
    if name in ("googlenet", "inception_v3"):
        # no second output while training; init_weights=None warns that its default will change
        arguments = {"aux_logits": False, "init_weights": True}
    models = import_module("torchvision.models")
    return models.get_model(name, weights=None, num_classes=num_classes, **arguments)


@functools.cache
def _pytorchcv_names() -> tuple[str, ...]:
    """Classifiers only: the first sentence of a module names the data that its models are for."""
    names = []
    for name, make in vars(import_module("pytorchcv.model_provider")).items():
        module = getattr(make, "__module__", "")
        if isinstance(make, types.FunctionType) and module.startswith("pytorchcv.models."):
            purpose = (sys.modules[module].__doc__ or "").partition("Original")[0]
            classifies = any(data in purpose for data in CLASSIFICATION_DATA)
            if classifies and not module.endswith(NO_CLASSIFIERS):
                names.append(name)
    return tuple(names)


def _pytorchcv(name: str, num_classes: int) -> Any:
    _check_name("pytorchcv", name, _pytorchcv_names())
    make = getattr(import_module("pytorchcv.model_provider"), name)
    try:
        return make(num_classes=num_classes, pretrained=False)
    except AssertionError:  # some CIFAR models insist on 10 or 100 classes
        model = make(pretrained=False)
        model.output = nn.Linear(model.output.in_features, num_classes)
        model.num_classes = num_classes
        return model


def _timm(name: str, num_classes: int) -> Any:
    timm = import_module("timm")
    if not timm.is_model(name):
        _check_name("timm", name, timm.list_models())
    return timm.create_model(name, pretrained=False, num_classes=num_classes)


MAKERS = {"torchvision": _torchvision, "pytorchcv": _pytorchcv, "timm": _timm}


def _check_name(source: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        full = [f"{source}:{one}" for one in known]
        near = meant(f"{source}:{name.lower()}", full, f", it has {source}:resnet18, for example")
        raise ValueError(f"{source} has no classification model {name!r}{near}")
