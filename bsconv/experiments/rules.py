"""Rules for settings: what each needs in words, as a question, and as an option of argparse."""

import dataclasses
import math
import operator
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

IMAGENET_CLASSES, CLASS_COUNTS = 1000, {"cifar10": 10, "cifar100": 100}
DATASETS = (*CLASS_COUNTS, "synthetic")  # all others are folders
FOLDER_SIZE = 32  # side of the images of a folder, unless a run says otherwise
COMPARISONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


@dataclass(frozen=True)
class Rule:
    """What a setting needs: in words, as a question, and as arguments of argparse."""

    text: str
    holds: Callable[[Any], bool]
    option: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def whole(least: int, most: float = math.inf, metavar: str = "N") -> Rule:
    text = f"a whole number >= {least}" + (f" and <= {most}" if most < math.inf else "")
    option = {"type": int, "metavar": metavar}
    return Rule(text, lambda value: type(value) is int and least <= value <= most, option)


def number(limits: str, metavar: str = "X") -> Rule:
    """A finite number within ``limits``, such as ``>= 0 and < 1``."""
    bounds = [limit.split() for limit in limits.split(" and ")]

    def holds(value: Any) -> bool:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        within = all(COMPARISONS[sign](value, float(bound)) for sign, bound in bounds)
        return within and math.isfinite(value)

    return Rule(f"a number {limits}", holds, {"type": float, "metavar": metavar})


def channels(limits: str) -> Rule:
    """A number for each of red, green and blue."""
    hold, option = _all(number(limits)), {"type": float, "nargs": 3, "metavar": ("R", "G", "B")}
    return Rule(f"three numbers {limits}", lambda value: hold(value) and len(value) == 3, option)


def one_of(*names: str) -> Rule:
    return Rule(" or ".join(map(repr, names)), lambda value: value in names, {"choices": names})


def text(what: str, metavar: str) -> Rule:
    return Rule(what, lambda value: isinstance(value, str) and value != "", {"metavar": metavar})


def flag(action: Any) -> Rule:
    return Rule("True or False", lambda value: isinstance(value, bool), {"action": action})


def _all(rule: Rule) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, tuple) and all(map(rule.holds, value))


def resize_parts(resize: str) -> tuple[str, str]:
    """The way and the filter of ``WAY,FILTER`` or ``WAY``."""
    way, _, filter = resize.partition(",")
    return way, filter or "bilinear"


EPOCHS = Rule("whole numbers >= 1", _all(whole(1)), {"type": int, "nargs": "+", "metavar": "EPOCH"})
NAME, MODEL = text("a name", "NAME"), text("a name", "MODEL")
PIXELS = whole(0, metavar="PIXELS")
TRAINED = text("a file of weights or a run's folder", "FILE")
FOLDER = text("the path of a folder", "DIR")
RESIZE_FORM = r"(squash|shorter|[0-9]+)(,(bilinear|bicubic|lanczos|nearest|box|hamming))?"
RESIZE = Rule(
    "'squash', 'shorter', a number of pixels, each alone or with a filter as '256,bicubic',",
    lambda value: isinstance(value, str) and re.fullmatch(RESIZE_FORM, value) is not None,
    {"metavar": "HOW"},
)
# of images in 0 ... 1; larger numbers are meant for images in 0 ... 255
MEAN = channels(">= 0 and <= 1")
STD = channels("> 0 and <= 1")


def absolute_name(model: str) -> str:
    """``FILE.py:FACTORY`` as it is found from any folder; other names as they are."""
    file, is_file, factory = model.rpartition(".py:")
    return f"{Path(os.path.expanduser(file)).absolute()}.py:{factory}" if is_file else model


def replaced_by(kind: str, p: float, with_bn: bool) -> str:
    """What the replacer for ``kind``, "u" or "s", puts in, such as ``BSConv-S, p = 1/4``."""
    share = f", p = {Fraction(p).limit_denominator(1000)}" if kind == "s" else ""
    return f"BSConv-{kind.upper()}{share}{', with BatchNorm' if with_bn else ''}"


def setting(default: Any, rule: Rule, help: str | None = None) -> Any:
    """Where the default is None, so may be the value. Without ``help``, the command line makes no
    option of it here: other commands have it too."""
    if default is None:
        holds, needs = rule.holds, f"{rule.text} or None"
        rule = Rule(needs, lambda value: value is None or holds(value), rule.option)
    shown = None if help is None else help.replace("{}", str(default))
    return dataclasses.field(default=default, metadata={"rule": rule, "help": shown})
