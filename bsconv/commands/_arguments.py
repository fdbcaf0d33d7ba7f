"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

MODEL_HELP = "an architecture of `bsconv models`, torchvision:NAME or pytorchcv:NAME"


def share(text: str) -> float:
    """A number such as 0.25 or 1/4."""
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"expected a share as 1/4 or 0.25, got {text!r}") from None


def image_size(text: str) -> tuple[int, ...]:
    """``3x32x32``, or ``32`` for a square of three channels."""
    parts = text.lower().split("x")
    if len(parts) in (1, 3) and all(part.isdecimal() and int(part) for part in parts):
        lengths = tuple(map(int, parts))
        return lengths if len(lengths) == 3 else (3, *lengths, *lengths)
    raise argparse.ArgumentTypeError(f"expected a size as 3x224x224 or 224, got {text!r}")


def add_input_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input-size",
        type=image_size,
        metavar="CxHxW",
        help="of one image, as 3x224x224 or 224 (default: what the model is made for)",
    )


def usual_size(name: str, model: nn.Module) -> tuple[int, ...]:
    """Of one image that the model ``name`` is made for; models of pytorchcv say it themselves."""
    side = 32 if name.lower().startswith("cifar_") else 224
    return (3, *getattr(model, "in_size", (side, side)))


def add_replacement(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """What the replacers take; nothing is set unless it is given."""
    parser.add_argument(
        "--bsconv",
        choices=["u", "s"],
        default=argparse.SUPPRESS,
        help="replace the convolutions by BSConv-U or BSConv-S",
    )
    parser.add_argument(
        "--p",
        type=share,
        default=argparse.SUPPRESS,
        metavar="SHARE",
        help="BSConv-S: share of the input channels kept (default 1/4)",
    )
    parser.add_argument(
        "--with-bn",
        action="store_true",
        default=argparse.SUPPRESS,
        help="BatchNorm after each replaced pointwise convolution",
    )


def add_weights(
    parser: argparse.ArgumentParser, *, required: bool = False
) -> argparse._MutuallyExclusiveGroup:
    """Where trained weights come from: the package or a file, not both, in the group returned."""
    which = parser.add_mutually_exclusive_group(required=required)
    which.add_argument(
        "--pretrained", metavar="NAME", help="weights that come with the package, such as cifar10"
    )
    which.add_argument(
        "--weights",
        metavar="FILE",
        help="weights of MODEL in a file (.safetensors, .pt, .pth) or the --out of a run",
    )
    return which
