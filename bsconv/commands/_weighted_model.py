"""What to analyse: a file of weights alone, or a model by its name with weights for it."""

from __future__ import annotations

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

IMAGENET_CLASSES = 1000
OWN_WEIGHTS = ("cifar10", 10)  # of get_model, and their number of classes


def weighted_model(
    name: str, weights: str | None, num_classes: int | None
) -> nn.Module | dict[str, Tensor]:
    """The model ``name`` with ``weights``: those of a file, "DEFAULT" or, if None, random ones.

    If ``name`` is a file of weights, they are the result. ValueError or OSError with one line for
    whatever is wrong; that weights are random is said on stderr.
    """
    import torch

    from ..experiments.files.weights import WEIGHT_FILES, read_weights
    from ..experiments.model_sources import build_model

    if name.endswith(WEIGHT_FILES):
        if weights is not None:
            raise ValueError(f"--weights goes with a model by its name, {name} is a file of them")
        return read_weights(name)
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


def _with_weights(name: str, path: Path, num_classes: int | None) -> nn.Module:
    """The model with the kernels of a file; what else is in the file is not looked at."""
    from ..experiments.files.weights import read_weights

    misfit = f"{path} does not fit {name}"
    found = _kernels(read_weights(path))
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
