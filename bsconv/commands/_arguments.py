"""Arguments that several commands share."""

import argparse
import dataclasses
from fractions import Fraction
from typing import Any

from ..experiments.config import TrainConfig

MODEL_HELP = (
    "an architecture of `bsconv models`; torchvision:NAME, pytorchcv:NAME or timm:NAME; or code of "
    "yours that makes it, FILE.py:FACTORY or package.module:FACTORY"
)


def share(text: str) -> float:
    """A number such as 0.25 or 1/4."""
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise argparse.ArgumentTypeError(f"expected a share as 1/4 or 0.25, got {text!r}") from None


def budget(text: str) -> float:
    """A share above 0 and up to 1, such as 25%, 0.25 or 1/4."""
    number = text.removesuffix("%")
    found = share(number) / (100 if number != text else 1)
    if 0 < found <= 1:
        return found
    raise argparse.ArgumentTypeError(f"expected more than 0% and at most 100%, got {text!r}")


def count(text: str) -> int:
    """A whole number of at least 1."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")


def image_size(text: str) -> tuple[int, ...]:
    """``3x32x32``, ``1x16000`` for a signal; or ``32`` for a square of three channels."""
    parts = text.lower().split("x")
    if all(part.isdecimal() and int(part) for part in parts):
        lengths = tuple(map(int, parts))
        return lengths if len(lengths) > 1 else (3, *lengths, *lengths)
    raise argparse.ArgumentTypeError(f"expected a size as 3x224x224 or 224, got {text!r}")


def add_settings(parser: argparse.ArgumentParser, *names: str) -> None:
    """An option for each of these settings of a run; by default, for all that have a help text."""
    settings = {each.name: each.metadata for each in dataclasses.fields(TrainConfig)}
    for name in names or [name for name, about in settings.items() if about["help"]]:
        how, help = settings[name]["rule"].option, settings[name]["help"]
        no = "no-" if how.get("action") == "store_false" else ""
        parser.add_argument(f"--{no}{name.replace('_', '-')}", dest=name, help=help, **how)


NORMALIZATION = ("normalize", "mean", "std")  # settings
IMAGES = ("image_size", "resize", "split")


def only_with(used: object, what: str, arguments: argparse.Namespace, *options: str) -> None:
    """ValueError for the first of ``options`` that is given though nothing uses it."""
    for option in () if used else options:
        value = getattr(arguments, option, None)
        if value is not None and value is not False:
            got = "" if value is True or isinstance(value, (list, tuple)) else f", got {value}"
            raise ValueError(f"--{option.replace('_', '-')} goes with {what}{got}")


def given_settings(arguments: argparse.Namespace, saved: bool = False) -> dict[str, Any]:
    """The settings of a run that the command line says; a normalisation whole, or not at all.

    ValueError for one without effect, unless they change ``saved`` ones."""
    given, known = vars(arguments).items(), TrainConfig.__dataclass_fields__
    found = {name: value for name, value in given if name in known and value is not None}
    only_with(saved or found.get("bsconv") == "s", "--bsconv s", arguments, "p")
    only_with(saved or "bsconv" in found, "--bsconv", arguments, "with_bn")
    if found.keys() & set(NORMALIZATION):
        return {**dict.fromkeys(NORMALIZATION), **found}
    return found


def add_input_size(parser: argparse.ArgumentParser) -> None:
    text = "of one image, as 3x224x224 or 224 (default: what the model is made for)"
    parser.add_argument("--input-size", type=image_size, metavar="CxHxW", help=text)


def add_num_classes(parser: argparse.ArgumentParser, *, of_weights: bool = False) -> None:
    """Unset where it is not given; ``of_weights``: then as many as the weights have."""
    usual = "1000, 10 for cifar_*"
    text = f"of MODEL (default: as many as the weights have, else {usual})"
    text = text if of_weights else f"default {usual}"
    parser.add_argument("--num-classes", type=count, metavar="N", help=text)


def add_replacement(parser: argparse.ArgumentParser) -> None:
    """What the replacers take; None, or unset, where it is not given."""
    text = "replace the convolutions by BSConv-U or BSConv-S"
    parser.add_argument("--bsconv", choices=["u", "s"], help=text)
    add_share(parser)
    add_with_bn(parser)


def add_share(parser: argparse.ArgumentParser, default: float | None = None) -> None:
    text = "BSConv-S: share of the input channels kept (default 1/4)"
    parser.add_argument("--p", type=share, default=default, metavar="SHARE", help=text)


def add_with_bn(parser: argparse.ArgumentParser, default: bool | None = None) -> None:
    text = "BatchNorm after each replaced pointwise convolution"
    parser.add_argument("--with-bn", action="store_true", default=default, help=text)


def add_weights(
    parser: argparse.ArgumentParser, *, required: bool = False
) -> argparse._MutuallyExclusiveGroup:
    """Where trained weights come from: the package or a file, not both, in the group returned."""
    which = parser.add_mutually_exclusive_group(required=required)
    text = "weights that come with the package, such as cifar10"
    which.add_argument("--pretrained", metavar="NAME", help=text)
    text = "weights of MODEL in a file (of torch.save or safetensors), or the --out of a run"
    which.add_argument("--weights", metavar="FILE", help=text)
    return which
