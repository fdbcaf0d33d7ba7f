"""Say how alike the slices of each kernel are: principal components beside those of random kernels.

A network of trained weights is read from a file, or fetched with --weights DEFAULT.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

HELP = "say how alike the slices of each kernel are"
WEIGHT_FILES = (".safetensors", ".pt", ".pth")
WRAPPED_AS = ("state_dict", "model")  # what holds the weights in a checkpoint
IMAGENET_CLASSES = 1000
OWN_WEIGHTS = ("cifar10", 10)  # of get_model, and their number of classes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="an architecture of `bsconv models`, torchvision:NAME or pytorchcv:NAME, or a file of "
        "weights alone (.safetensors, .pt, .pth)",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE|DEFAULT",
        help="trained weights for MODEL: a file, or DEFAULT for those that its library offers",
    )
    parser.add_argument(
        "--no-center",
        action="store_true",
        help="shares of the energy, which BSConv-U keeps, rather than of the variance",
    )
    parser.add_argument(
        "--num-classes",
        type=int,
        metavar="N",
        help="of MODEL (default: as many as the weights have, else 1000)",
    )
    parser.add_argument("--csv", metavar="FILE", help="write the table to a CSV file as well")


def run(arguments: argparse.Namespace) -> int:
    if arguments.num_classes is not None and arguments.num_classes < 1:
        raise ValueError(f"--num-classes must be at least 1, got {arguments.num_classes}")
    source = _source(arguments.model, arguments.weights, arguments.num_classes)

    from ..pytorch import spectra_table

    table = spectra_table(source, center=not arguments.no_center)
    if arguments.csv is not None:
        table.to_csv(arguments.csv)
    print(table)
    return 0


def _source(
    name: str, weights: str | None, num_classes: int | None
) -> nn.Module | dict[str, Tensor]:
    import torch

    from ..experiments.model_sources import build_model

    if name.endswith(WEIGHT_FILES):
        if weights is not None:
            raise ValueError(f"--weights goes with a model by its name, {name} is a file of them")
        return _read(Path(name))
    if weights == "DEFAULT":
        return _with_default_weights(name)
    if weights is not None:
        return _with_weights(name, Path(weights), num_classes)
    torch.manual_seed(0)  # the same table each time
    model = build_model(name, num_classes or IMAGENET_CLASSES)
    print(
        f"bsconv spectra: {name} starts from random weights; "
        "--weights FILE or --weights DEFAULT gives it trained ones",
        file=sys.stderr,
    )
    return model


def _build_empty(name: str, num_classes: int) -> nn.Module:
    import torch

    from ..experiments.model_sources import build_model

    try:
        with torch.device("meta"):  # spends nothing on weights
            return build_model(name, num_classes)
    except Exception:  # a model that computes with values while it is made, or bad input
        return build_model(name, num_classes)


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names, without running code from it."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with open(path, "rb") as file:  # missing or unreadable: OSError, as the system says it
        try:
            if path.suffix == ".safetensors":
                return load_file(path)
            content = torch.load(file, map_location="cpu", weights_only=True)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged or no safetensors file") from error
        except MemoryError:
            raise
        except Exception as error:  # a damaged file may raise anything at all
            raise ValueError(
                f"{path} is damaged or holds more than weights, which would have to be run to be "
                "read: save a state dict"
            ) from error
    inner = (content[key] for key in WRAPPED_AS if isinstance(content, dict) and key in content)
    state = next(inner, content)
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, no state dict")
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(tensors, "module.")
    return tensors


def _with_weights(name: str, path: Path, num_classes: int | None) -> nn.Module:
    """The model with the kernels of a file; what else is in the file is not looked at."""
    misfit = f"{path} does not fit {name}"
    found = _kernels(_read(path))
    model = _build_empty(name, num_classes or IMAGENET_CLASSES)
    wanted = _kernels(model.state_dict())
    for verb, names in (("lacks", wanted.keys() - found), ("also has", found.keys() - wanted)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"{misfit}: it {verb} {min(names)}{more}")
    for kernel, value in found.items():
        shape, expected = tuple(value.shape), tuple(wanted[kernel].shape)
        if num_classes is None and expected[0] == IMAGENET_CLASSES and shape[1:] == expected[1:]:
            return _with_weights(name, path, shape[0])  # a classifier that is a convolution
        if shape != expected:
            raise ValueError(
                f"{misfit}: {kernel} has shape {shape} in the file, {expected} in the model"
            )
        if not value.is_floating_point():
            raise ValueError(f"{misfit}: {kernel} has numbers of {value.dtype}")
    model.load_state_dict(found, strict=False, assign=True)
    return model


def _kernels(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if value.dim() > 2}


def _with_default_weights(name: str) -> nn.Module:
    from ..experiments.model_sources import build_model

    source, separator, inner = name.partition(":")
    if not separator:
        pretrained, num_classes = OWN_WEIGHTS
        return build_model(name, num_classes, pretrained=pretrained)
    _build_empty(name, IMAGENET_CLASSES)  # an unknown name fails here, before anything is fetched
    way_out = f"--weights FILE takes a file of weights of {name} instead"
    if os.environ.get("BSCONV_OFFLINE", "0") not in ("", "0"):
        raise ValueError(f"BSCONV_OFFLINE is set, so no weights are fetched; {way_out}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it is for the table alone
            return _fetch(source, inner)
    # a bad checksum is a RuntimeError, a name without weights a ValueError
    except (OSError, RuntimeError, ValueError, EOFError, http.client.HTTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"cannot get the weights of {name} ({reason}); {way_out}") from error


def _fetch(source: str, name: str) -> Any:
    if source == "torchvision":
        return importlib.import_module("torchvision.models").get_model(name, weights="DEFAULT")
    return getattr(importlib.import_module("pytorchcv.model_provider"), name)(pretrained=True)
