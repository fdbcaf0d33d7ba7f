"""A model by its name: of this package, another library or the user's code, replaced if asked."""

import contextlib
import difflib
import functools
import importlib.util
import inspect
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ..pytorch import BSConvS_Replacer, BSConvU_Replacer, get_model
from ..pytorch._tools.errors import one_line
from ..pytorch.models import ModelName, parse_name
from .normalization import STATISTICS
from .rules import absolute_name

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

    ``name`` is an architecture of :func:`bsconv.pytorch.list_models`; ``torchvision:NAME``,
    ``pytorchcv:NAME`` or ``timm:NAME``, with random weights; or ``FILE.py:FACTORY`` or
    ``package.module:FACTORY``, code that is run: a function or class that makes the network, of
    ``num_classes`` if it has an argument of that name. ``bsconv`` replaces the
    convolutions by BSConv-U or BSConv-S, with ``p`` (S only) and ``with_bn`` as in the replacers.
    ``init`` ("published" or "matched") and ``pretrained`` are those of
    :func:`bsconv.pytorch.get_model`.
    """
    if num_classes < 1:
        raise ValueError(f"a classifier needs num_classes >= 1, got {num_classes=}")
    name = absolute_name(name)
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
    elif pretrained is not None:
        raise ValueError(
            f"pretrained weights are those of this package's architectures, "
            f"not of {name}, got {pretrained=}"
        )
    elif source in MAKERS:
        model = MAKERS[source](inner, num_classes)
    else:
        model = _of_user(name, num_classes)
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
        if name.endswith(".py"):
            raise ValueError(f"{name} needs the function that makes it: {name}:FACTORY") from error
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


def _timm(name: str, num_classes: int) -> nn.Module:
    timm = _import("timm")
    if not timm.is_model(name):
        _check_name("timm", name, timm.list_models())
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    return model


MAKERS = {"torchvision": _torchvision, "pytorchcv": _pytorchcv, "timm": _timm}


def is_code(name: str) -> bool:
    """Whether a model's name says which code of the user's makes it."""
    return ":" in name and name.partition(":")[0] not in MAKERS


def check_remembered(name: str) -> None:
    """ValueError for code that a file names, and nobody on this machine has named before.

    A file from elsewhere cannot have any other code run.
    """
    if is_code(name) and name not in _named():
        raise ValueError(
            f"{name} is code that makes a model, which a file names and you have not; if you trust "
            f"it, say so with: bsconv plan {name}"
        )


def _named() -> list[str]:
    try:
        return _names_file().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _names_file() -> Path:
    """Next to the list of repositories that torch.hub may run."""
    return Path(torch.hub.get_dir()) / "bsconv_models"


def _of_user(name: str, num_classes: int) -> nn.Module:
    place, _, attribute = name.rpartition(":")
    try:
        make = getattr(_module(name, place), attribute, None)
        if not callable(make):
            raise ValueError(f"{name}: {place} has no function or class {attribute!r}")
        takes = inspect.signature(make).parameters
        model = make(num_classes=num_classes) if "num_classes" in takes else make()
    except ValueError:
        raise
    except Exception as error:  # the code of a user may raise anything at all
        raise ValueError(f"{name} fails: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} needs to make a torch.nn.Module, got a {type(model).__name__}")
    if name not in (known := _named()):
        with contextlib.suppress(OSError):
            _names_file().parent.mkdir(parents=True, exist_ok=True)
            _names_file().write_text("\n".join([*known, name, ""]), encoding="utf-8")
    return model


def _module(name: str, place: str) -> types.ModuleType:
    """The module of the file or of the name ``place``, which is run once."""
    if not place.endswith(".py"):
        here = os.getcwd()
        if here not in sys.path:
            sys.path.append(here)  # as for `python -m`
        try:
            return importlib.import_module(place or ".")
        except (ModuleNotFoundError, TypeError) as error:
            missing = getattr(error, "name", place)
            if missing is None or not f"{place}.".startswith(f"{missing}."):
                raise  # of something that the module needs
            known = ", ".join(f"{source}:NAME" for source in MAKERS)
            raise ValueError(
                f"unknown source {place!r} in {name!r}: models come from {known}, FILE.py:FACTORY "
                "or package.module:FACTORY"
            ) from error
    path = Path(place).expanduser().absolute()
    if not path.is_file():
        raise ValueError(f"{name} needs a Python file, {path} is not there")
    key = f"{path.stem}_{hash((path, path.stat().st_mtime_ns)):x}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))  # for what it imports from its own folder
        sys.modules[key] = module  # where dataclasses and pickle look
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[key]
            raise
    return sys.modules[key]


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
