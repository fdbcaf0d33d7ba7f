"""Architecture names: one parser, and the list of what can be named. Case does not matter.

    [cifar_](resnet|preresnet)DEPTH[VARIANT], cifar_wrnDEPTH_WIDTH[VARIANT]
    [cifar_]mobilenetv1_wWIDTH[_bsconvu]
    [cifar_](mobilenetv2|mobilenetv3_small|mobilenetv3_large)_wWIDTH[_bsconvs_p1d6]

VARIANT is ``_bsconvu`` or ``_bsconvs_pSHARE``; the width of a MobileNet and the share are written
``3`` or ``3d4`` for 3/4.
"""

import functools
import itertools
import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import NamedTuple

BlocksByDepth = dict[int, tuple[int, ...]]

# blocks in each stage, by depth
IMAGENET_RESNETS: BlocksByDepth = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    26: (3, 3, 3, 3),
    34: (3, 4, 6, 3),
    68: (3, 4, 23, 3),
    102: (3, 8, 36, 3),
}
CIFAR_RESNETS: BlocksByDepth = {depth: ((depth - 2) // 6,) * 3 for depth in (20, 56, 110, 302, 602)}
BLOCKS: dict[str, BlocksByDepth] = {
    "resnet": IMAGENET_RESNETS,
    "preresnet": IMAGENET_RESNETS,
    "cifar_resnet": CIFAR_RESNETS,
    "cifar_preresnet": CIFAR_RESNETS,
    "cifar_wrn": {depth: ((depth - 4) // 6,) * 3 for depth in (16, 28, 40)},
}


class MobileNet(NamedTuple):
    """What a family can be."""

    least_width: Fraction  # a narrower one has a layer without channels
    suffix: str = "_bsconvs_p1d6"  # of its BSConv form


MOBILENETS = {
    "mobilenetv1": MobileNet(Fraction(1, 32), "_bsconvu"),
    "mobilenetv2": MobileNet(Fraction(1, 16)),
    "mobilenetv3_small": MobileNet(Fraction(1, 4)),
    "mobilenetv3_large": MobileNet(Fraction(1, 16)),
}

LISTED_WRN_WIDTHS = (1, 2, 3, 4, 6, 8, 10, 12)
LISTED_SHARES = ("1d2", "1d4", "1d6", "1d8")
LISTED_MOBILENET_WIDTHS = ("1", "3d4", "1d2", "7d20", "1d4")

PATTERN = re.compile(
    rf"(?P<family>(cifar_)?(?:(?:pre)?resnet|wrn|{'|'.join(MOBILENETS)}))"
    r"(?P<depth>\d+)?(?:_(?P<width>\d+)|_w(?P<multiplier>\w+?))?"
    r"(?:_(?P<variant>bsconvu|bsconvs_p(?P<p>\w+)))?"
)


@dataclass(frozen=True)
class ModelName:
    """A parsed architecture name; ``str()`` writes it again, in lower case and in lowest terms.

    ``family`` is without ``cifar_``; ``depth`` is 0 for MobileNets; ``variant`` is "", "u" or "s";
    ``p`` is the share of the variant "s", 1/4 for the others.
    """

    family: str
    is_cifar: bool
    depth: int = 0
    width: Fraction = Fraction(1)
    variant: str = ""
    p: Fraction = Fraction(1, 4)

    def __str__(self) -> str:
        name = f"{'cifar_' if self.is_cifar else ''}{self.family}{self.depth or ''}"
        if self.is_mobilenet:
            name += f"_w{_fraction_text(self.width)}"
        elif self.family == "wrn":
            name += f"_{self.width}"
        return name + _suffix(self.variant, self.p)

    @property
    def dense(self) -> "ModelName":
        """The network of which this one is a variant; itself where it is dense."""
        return replace(self, variant="", p=Fraction(1, 4))

    @property
    def is_mobilenet(self) -> bool:
        return self.family in MOBILENETS

    @property
    def blocks(self) -> tuple[int, ...]:
        """Of a residual network, for each stage."""
        return BLOCKS[f"cifar_{self.family}" if self.is_cifar else self.family][self.depth]

    @property
    def is_preactivated(self) -> bool:
        return self.family in ("preresnet", "wrn")


def parse_name(architecture: str) -> ModelName:
    """Reads an architecture name; ValueError, with the nearest names, for any other text."""
    if not isinstance(architecture, str):
        raise TypeError(f"architecture needs to be a name, got {architecture!r}")
    try:
        return _parse(architecture.lower())
    except ValueError as error:
        near = _nearest(architecture.lower())
        hint = f"did you mean {' or '.join(near)}?" if near else "list_models() has them all"
        raise ValueError(f"'{architecture}' {error}; {hint}") from None


def _nearest(architecture: str) -> list[str]:
    """The three most similar names, those with the longest common start first."""

    def common_start(name: str) -> int:
        pairs = itertools.zip_longest(name, architecture)
        return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))

    near = get_close_matches(architecture, _listed_names(), n=20)
    return sorted(near, key=common_start, reverse=True)[:3]


def _parse(architecture: str) -> ModelName:
    match = PATTERN.fullmatch(architecture)
    if match is None:
        raise ValueError("is not an architecture of this package")
    family, is_cifar = match["family"].removeprefix("cifar_"), architecture.startswith("cifar_")
    variant, p = (match["variant"] or "")[6:7], Fraction(1, 4)
    if family in MOBILENETS:
        depth, width = 0, _mobilenet_width(match, family)
    else:
        depth, width = _resnet_depth_and_width(match, family)
    if match["p"] is not None and (p := parse_fraction(match["p"])) > 1:
        raise ValueError(f"has p = {p}, while p is a share of channels, at most 1")
    if family in MOBILENETS and _suffix(variant, p) not in ("", MOBILENETS[family].suffix):
        only = MOBILENETS[family].suffix
        raise ValueError(f"has the variant _{match['variant']}, while {family} takes {only} only")
    return ModelName(family, is_cifar, depth, width, variant, p)


def _resnet_depth_and_width(match: re.Match[str], family: str) -> tuple[int, Fraction]:
    known = BLOCKS.get(match["family"])
    if known is None:
        raise ValueError(
            f"is not an architecture of this package: {family} comes as cifar_{family}"
        )
    if match["depth"] is None or int(match["depth"]) not in known:
        depth = f"depth {match['depth']}" if match["depth"] else "no depth"
        raise ValueError(
            f"has {depth}, while {match['family']} comes with {', '.join(map(str, known))}"
        )
    width = match["width"]
    if match["multiplier"] or (family == "wrn") != (width is not None):
        rule = "needs a width" if family == "wrn" else "takes no width"
        raise ValueError(f"{rule}, as in cifar_wrn16_4")
    if width is not None and int(width) < 1:
        raise ValueError("has width 0, while it needs at least 1")
    return int(match["depth"]), Fraction(width or 1)


def _mobilenet_width(match: re.Match[str], family: str) -> Fraction:
    if match["multiplier"] is None or match["depth"] or match["width"]:
        raise ValueError("needs a width multiplier such as _w1 or _w3d4, and nothing else")
    width = parse_fraction(match["multiplier"])
    least = MOBILENETS[family].least_width
    if width < least:
        raise ValueError(
            f"has width {width}, which leaves a layer without channels: {family} needs at least "
            f"{least}"
        )
    return width


def parse_fraction(text: str) -> Fraction:
    """``"3d4"`` is 3/4, ``"2"`` is 2; ValueError for all but positive fractions."""
    match = re.fullmatch(r"(\d+)(?:d(\d+))?", text)
    if match is None or int(match[1]) == 0 or int(match[2] or 1) == 0:
        raise ValueError(f"has the fraction '{text}', while '3d4' or '1' would be one")
    return Fraction(int(match[1]), int(match[2] or 1))


def _suffix(variant: str, p: Fraction) -> str:
    """What a name ends in: nothing for a dense network."""
    share = f"_p{_fraction_text(p)}" if variant == "s" else ""
    return f"_bsconv{variant}{share}" if variant else ""


def _fraction_text(value: Fraction) -> str:
    return str(value).replace("/", "d")


@functools.cache
def _listed_names() -> tuple[str, ...]:
    variants = ["", "_bsconvu"] + [f"_bsconvs_p{share}" for share in LISTED_SHARES]
    names = [f"{family}{depth}" for family in BLOCKS for depth in BLOCKS[family]]
    wide = [name for name in names if "wrn" in name]
    bases = [name for name in names if name not in wide]
    bases += [f"{name}_{width}" for name in wide for width in LISTED_WRN_WIDTHS]
    names = [base + variant for base in bases for variant in variants]
    for style, family in itertools.product(("", "cifar_"), MOBILENETS):
        for width in LISTED_MOBILENET_WIDTHS:
            base = f"{style}{family}_w{width}"
            names += [base, base + MOBILENETS[family].suffix]
    return tuple(sorted(names))


def list_models(pattern: str = "*") -> list[str]:
    """The architectures of the paper's tables and their relatives, sorted.

    ``pattern`` selects by shell wildcards, as in ``list_models("cifar_wrn*_bsconvs_*")``; case does
    not matter. :func:`get_model` builds other widths and other values of p as well.
    """
    if not isinstance(pattern, str):
        raise TypeError(f"pattern needs to be a string, got {pattern!r}")
    return [name for name in _listed_names() if fnmatchcase(name, pattern.lower())]
