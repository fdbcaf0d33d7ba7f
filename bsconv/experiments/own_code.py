"""Models that code of the user's makes: ``FILE.py:FACTORY`` and ``package.module:FACTORY``."""

import importlib.util
import inspect
import os
import shlex
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..basics.errors import described, meant
from ..basics.files import written_whole

SOURCES = ("torchvision", "pytorchcv", "timm")  # of other models with a colon in their name


def is_code(name: str) -> bool:
    """Whether a model's name says which code of the user's makes it."""
    return ":" in name and name.partition(":")[0] not in SOURCES


def check_remembered(name: str) -> None:
    """ValueError for code that a file names, and nobody on this machine has named before.

    A file from elsewhere cannot have any other code run.
    """
    if is_code(name) and name not in _named():
        what = "code that makes a model, which a file names and you have not"
        way = f"bsconv plan {shlex.quote(name)}"
        raise ValueError(f"{name} is {what}; if you trust it, say so with: {way}")


def _named() -> list[str]:
    try:
        return _names_file().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _names_file() -> Path:
    """Next to the list of repositories that torch.hub may run."""
    return Path(torch.hub.get_dir()) / "bsconv_models"


def made_by(name: str, num_classes: int) -> nn.Module:
    place, _, attribute = name.rpartition(":")
    try:
        module = _module(name, place)
        make = getattr(module, attribute, None)
        if not callable(make):
            near = meant(attribute, (one for one, value in vars(module).items() if callable(value)))
            raise ValueError(f"{place} has no function or class {attribute!r}{near}")
        takes = inspect.signature(make).parameters
        model = make(num_classes=num_classes) if "num_classes" in takes else make()
    except ValueError:
        raise
    except (Exception, SystemExit) as error:  # the code of a user may raise anything at all
        raise ValueError(f"{name} fails: {described(error)}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} needs to make a torch.nn.Module, got {model!r:.40}")
    if name not in (known := _named()):
        try:
            _names_file().parent.mkdir(parents=True, exist_ok=True)
            with written_whole(_names_file()) as whole:
                whole.write_text("\n".join([*known, name, ""]), encoding="utf-8")
        except OSError as error:
            warnings.warn(f"{name} cannot be remembered: {error}", stacklevel=2)
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
            known = ", ".join(f"{source}:NAME" for source in SOURCES)
            known += ", FILE.py:FACTORY or package.module:FACTORY"
            unknown = f"unknown source {place!r} in {name!r}"
            raise ValueError(f"{unknown}: models come from {known}") from error
    path = Path(os.path.expanduser(place)).absolute()
    if not path.is_file():
        raise ValueError(f"{name} needs a Python file, {path} is not there")
    key = f"{path.stem}_{hash((path, path.stat().st_mtime_ns)):x}"
    if key not in sys.modules:
        spec: Any = importlib.util.spec_from_file_location(key, path)
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
