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
from fnmatch import fnmatchcase
from fractions import Fraction

from ...basics.errors import meant

BlocksByDepth = dict[int, tuple[int, ...]]  # in each stage

IMAGENET_RESNETS: BlocksByDepth = {
    10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 26: (3, 3, 3, 3), 34: (3, 4, 6, 3), 68: (3, 4, 23, 3),
    102: (3, 8, 36, 3),
}  # fmt: skip
CIFAR_RESNETS: BlocksByDepth = {depth: ((depth - 2) // 6,) * 3 for depth in (20, 56, 110, 302, 602)}
BLOCKS: dict[str, BlocksByDepth] = {
    "resnet": IMAGENET_RESNETS,
    "preresnet": IMAGENET_RESNETS,
    "cifar_resnet": CIFAR_RESNETS,
    "cifar_preresnet": CIFAR_RESNETS,
    "cifar_wrn": {depth: ((depth - 4) // 6,) * 3 for depth in (16, 28, 40)},
}
LEAST_WIDTHS = {  # a narrower one has a layer without channels
    "mobilenetv1": Fraction(1, 32),
    "mobilenetv2": Fraction(1, 16),
    "mobilenetv3_small": Fraction(1, 4),
    "mobilenetv3_large": Fraction(1, 16),
}

LISTED_WRN_WIDTHS = (1, 2, 3, 4, 6, 8, 10, 12)
LISTED_VARIANTS = ["", "_bsconvu"] + [f"_bsconvs_p1d{share}" for share in (2, 4, 6, 8)]
LISTED_MOBILENET_WIDTHS = ["1", "3d4", "1d2", "7d20", "1d4"]

UNKNOWN = "is not an architecture of this package"
PATTERN = re.compile(
    rf"(?P<family>(cifar_)?(?:(?:pre)?resnet|wrn|{'|'.join(LEAST_WIDTHS)}))"
    r"(?P<depth>\d+)?(?:_(?P<width>[1-9]\d*)|_w(?P<multiplier>\w+?))?"
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
        return self.family in LEAST_WIDTHS

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
        near = meant(architecture.lower(), _listed_names(), ", list_models() has them all")
        raise ValueError(f"'{architecture}' {error}{near}") from None


def _parse(architecture: str) -> ModelName:
    match = PATTERN.fullmatch(architecture)
    if match is None:
        raise ValueError(UNKNOWN)
    family, is_cifar = match["family"].removeprefix("cifar_"), architecture.startswith("cifar_")
    variant, p = (match["variant"] or "")[6:7], Fraction(1, 4)
    if family in LEAST_WIDTHS:
        depth, width = 0, _mobilenet_width(match, family)
    else:
        depth, width = _resnet_depth_and_width(match, family)
    if match["p"] is not None and (p := parse_fraction(match["p"])) > 1:
        raise ValueError(f"has p = {p}, while p is a share of channels, at most 1")
    if family in LEAST_WIDTHS and _suffix(variant, p) not in ("", only := bsconv_suffix(family)):
        raise ValueError(f"has the variant _{match['variant']}, while {family} takes {only} only")
    return ModelName(family, is_cifar, depth, width, variant, p)


def _resnet_depth_and_width(match: re.Match[str], family: str) -> tuple[int, Fraction]:
    if match["family"] not in BLOCKS:
        raise ValueError(f"{UNKNOWN}: {family} comes as cifar_{family}")
    known, depth = BLOCKS[match["family"]], int(match["depth"] or 0)
    if depth not in known:
        given, all_of_them = match["depth"], ", ".join(map(str, known))
        has = f"depth {given}" if given else "no depth"
        raise ValueError(f"has {has}, while {match['family']} comes with {all_of_them}")
    if match["multiplier"] or (family == "wrn") != (match["width"] is not None):
        rule = "needs a width" if family == "wrn" else "takes no width"
        raise ValueError(f"{rule}, as in cifar_wrn16_4")
    return depth, Fraction(match["width"] or 1)


def _mobilenet_width(match: re.Match[str], family: str) -> Fraction:
    if match["multiplier"] is None or match["depth"] or match["width"]:
        raise ValueError("needs a width multiplier such as _w1 or _w3d4, and nothing else")
    width, least = parse_fraction(match["multiplier"]), LEAST_WIDTHS[family]
    if width < least:
        rule = f"which leaves a layer without channels: {family} needs at least {least}"
        raise ValueError(f"has width {width}, {rule}")
    return width


def parse_fraction(text: str) -> Fraction:
    """``"3d4"`` is 3/4, ``"2"`` is 2; ValueError for all but positive fractions."""
    match = re.fullmatch(r"([1-9]\d*)(?:d([1-9]\d*))?", text)
    if match is None:
        raise ValueError(f"has the fraction '{text}', while '3d4' or '1' would be one")
    return Fraction(int(match[1]), int(match[2] or 1))


def bsconv_suffix(mobilenet: str) -> str:
    """What the name of the BSConv form of this family ends in."""
    return "_bsconvu" if mobilenet == "mobilenetv1" else "_bsconvs_p1d6"


def _suffix(variant: str, p: Fraction) -> str:
    """What a name ends in: nothing for a dense network."""
    share = f"_p{_fraction_text(p)}" if variant == "s" else ""
    return f"_bsconv{variant}{share}" if variant else ""


def _fraction_text(value: Fraction) -> str:
    return str(value).replace("/", "d")


@functools.cache
def _listed_names() -> tuple[str, ...]:
    found: list[tuple[str, ...]] = []
    for family, depths in BLOCKS.items():
        widths = [f"_{width}" for width in LISTED_WRN_WIDTHS] if family == "cifar_wrn" else [""]
        found += itertools.product([family], map(str, depths), widths, LISTED_VARIANTS)
    for family in LEAST_WIDTHS:
        widths, variants = LISTED_MOBILENET_WIDTHS, ["", bsconv_suffix(family)]
        found += itertools.product(["", "cifar_"], [f"{family}_w"], widths, variants)
    return tuple(sorted(map("".join, found)))


def list_models(pattern: str = "*") -> list[str]:
    """The architectures of the paper's tables and their relatives, sorted.

    ``pattern`` selects by shell wildcards, as in ``list_models("cifar_wrn*_bsconvs_*")``; case does
    not matter. :func:`get_model` builds other widths and other values of p as well.

    >>> list_models("cifar_wrn28_10_bsconvu")
    ['cifar_wrn28_10_bsconvu']
    """
    if not isinstance(pattern, str):
        raise TypeError(f"pattern needs to be a string, got {pattern!r}")
    return [name for name in _listed_names() if fnmatchcase(name, pattern.lower())]
