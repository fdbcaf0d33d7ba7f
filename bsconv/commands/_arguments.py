"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from fractions import Fraction

MODEL_HELP = "an architecture of `bsconv models`, torchvision:NAME or pytorchcv:NAME"


def share(text: str) -> float:
    """A number such as 0.25 or 1/4."""
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"expected a share as 1/4 or 0.25, got {text!r}") from None


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


def add_weights(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Where trained weights come from: the package or a file, not both."""
    which = parser.add_mutually_exclusive_group(required=required)
    which.add_argument(
        "--pretrained", metavar="NAME", help="weights that come with the package, such as cifar10"
    )
    which.add_argument(
        "--weights",
        metavar="FILE",
        help="weights of MODEL in a file (.safetensors, .pt, .pth) or the --out of a run",
    )
