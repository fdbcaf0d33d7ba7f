"""From a name to a network, and the trained weights that come with the package.

These are a file each, with a note in JSON: its checksum, the number of classes, the settings of the
run, and the accuracy measured with this very file.
"""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .._tools.convs import is_size
from ..initialization import dense_conv, match_variance_, uninitialized
from ..modules import BSConvS, BSConvU, bsconv_s, bsconv_u
from ._blocks import ConvLayer, ImageClassifier
from ._names import ModelName, parse_name
from .mobilenet import mobilenet
from .resnet import resnet

FOLDER = Path(__file__).parents[2] / "weights"
DTYPES = {"F16": torch.float16, "F32": torch.float32, "I64": torch.int64}  # in the files
INITS = ("default", "published", "matched")  # the first two are the same


def get_model(
    architecture: str, num_classes: int, *, pretrained: str | None = None, init: str = "default"
) -> ImageClassifier:
    """The network called ``architecture``, freshly initialised (:func:`list_models` lists names).

    Images (B, 3, H, W) to logits (B, num_classes). No input normalisation is needed: a BatchNorm
    comes first. ``model.reg_loss(alpha=0.1)`` is the penalty of the BSConv-S variants.

    Args:
        pretrained: the data set of weights that come with the package: "cifar10", for
            cifar_resnet20, cifar_wrn16_1, its BSConv variants and cifar_wrn16_2_bsconvu.
        init: how BSConv layers start; dense convolutions start Kaiming-uniform and the classifier
            Xavier-normal with either. "default", also called "published": as PyTorch starts
            convolutions, which bsconv 0.4.0 did and does better. "matched": with the variance of
            the dense convolution (:func:`bsconv.pytorch.initialization.match_variance_`).

    Raises ValueError for an unknown name, num_classes < 1, another ``init``, ``pretrained`` weights
    that do not exist or have other classes, and a damaged file of them.

    >>> get_model("cifar_resnet20_bsconvu", num_classes=10)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    name = parse_name(architecture)
    if not is_size(num_classes):
        raise ValueError(f"num_classes needs to be at least 1, got num_classes={num_classes!r}")
    if init not in INITS:
        raise ValueError(f"init needs to be 'default' or 'matched', got init={init!r}")
    state = None if pretrained is None else trained_weights(architecture, pretrained, num_classes)
    model = (mobilenet if name.is_mobilenet else resnet)(name, num_classes, _conv_layer(name, init))
    if state is not None:
        model.load_state_dict(state)
    return model


def _conv_layer(name: ModelName, init: str) -> ConvLayer:
    if not name.variant:
        return dense_conv
    conv: Callable[..., BSConvU | BSConvS] = bsconv_u
    if name.variant == "s":
        conv = partial(bsconv_s, p=name.p, with_bn=True)
    if init != "matched":
        return conv
    return lambda *args, **kwargs: match_variance_(uninitialized(conv, *args, **kwargs))


def trained_weights(architecture: str, pretrained: str, num_classes: int) -> dict[str, Tensor]:
    """The state dict; ValueError for another name or number of classes, and for a damaged file."""
    known = sorted(path.parent.name for path in FOLDER.glob(f"*/{architecture.lower()}.json"))
    if pretrained not in known:
        hint = f"there are {', '.join(map(repr, known))}" if known else "it has none"
        raise ValueError(f"there are no weights {pretrained=} for '{architecture}'; {hint}")
    path = FOLDER / pretrained / f"{architecture.lower()}.safetensors"
    note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if note["num_classes"] != num_classes:
        needed = f"num_classes={note['num_classes']}, got {num_classes=}"
        raise ValueError(f"the weights {pretrained=} of '{architecture}' need {needed}")
    content = path.read_bytes()
    found, expected = hashlib.sha256(content).hexdigest(), note["sha256"]
    if found != expected:
        damage = f"its SHA-256 needs to be {expected}, got {found}"
        raise ValueError(f"{path} is damaged: {damage}; install bsconv again")
    start = 8 + int.from_bytes(content[:8], "little")  # safetensors, read without the package
    entries, data = json.loads(content[8:start]), bytearray(content[start:])
    return {
        name: torch.frombuffer(data[slice(*at)], dtype=DTYPES[entry["dtype"]]).view(entry["shape"])
        for name, entry in entries.items()
        if (at := entry.get("data_offsets"))  # metadata have none
    }
