"""Architecture names: one parser, and the list of what can be named.

``[cifar_](resnet|preresnet)DEPTH`` and ``cifar_wrnDEPTH_WIDTH``, each plain, with ``_bsconvu``, or
with ``_bsconvs_pXdY`` for p = X/Y. Case does not matter.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from fractions import Fraction

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
CIFAR_RESNETS: BlocksByDepth = {
    20: (3, 3, 3),
    56: (9, 9, 9),
    110: (18, 18, 18),
    302: (50, 50, 50),
    602: (100, 100, 100),
}
CIFAR_WRNS: BlocksByDepth = {16: (2, 2, 2), 28: (4, 4, 4), 40: (6, 6, 6)}

BLOCKS: dict[str, BlocksByDepth] = {
    "resnet": IMAGENET_RESNETS,
    "preresnet": IMAGENET_RESNETS,
    "cifar_resnet": CIFAR_RESNETS,
    "cifar_preresnet": CIFAR_RESNETS,
    "cifar_wrn": CIFAR_WRNS,
}
LISTED_WRNS = ((16, 1), (16, 2), (16, 4), (16, 8), (28, 10), (40, 1), (40, 2), (40, 4), (40, 8))
LISTED_VARIANTS = ("", "_bsconvu", "_bsconvs_p1d2", "_bsconvs_p1d4")

PATTERN = re.compile(
    r"(?P<family>(cifar_)?(pre)?resnet|cifar_wrn)(?P<depth>\d+)(_(?P<width>\d+))?"
    r"(_(?P<variant>bsconvu|bsconvs_p(?P<p>\w+)))?"
)


@dataclass(frozen=True)
class ModelName:
    """A parsed architecture name."""

    family: str  # a key of BLOCKS
    depth: int
    width: int = 1
    variant: str = ""  # "", "u" or "s"
    p: Fraction = Fraction(1, 4)

    @property
    def blocks(self) -> tuple[int, ...]:
        return BLOCKS[self.family][self.depth]

    @property
    def is_cifar(self) -> bool:
        return self.family.startswith("cifar_")

    @property
    def is_preactivated(self) -> bool:
        return self.family.endswith(("preresnet", "wrn"))


def parse_name(architecture: str) -> ModelName:
    """Reads an architecture name; ValueError, with the nearest names, for one that is none."""
    match = PATTERN.fullmatch(architecture.lower())
    if match is None:
        raise _unknown(architecture, "is no architecture of this package")
    family, depth = match["family"], int(match["depth"])
    if depth not in BLOCKS[family]:
        known = ", ".join(map(str, BLOCKS[family]))
        raise _unknown(architecture, f"has depth {depth}, while {family} comes with {known}")
    if (family == "cifar_wrn") != (match["width"] is not None):
        rule = "needs a width" if family == "cifar_wrn" else "takes no width"
        raise _unknown(architecture, f"{rule}, as in cifar_wrn16_4")
    if match["width"] is not None and int(match["width"]) < 1:
        raise _unknown(architecture, "has width 0, while it needs at least 1")
    width, variant = int(match["width"] or 1), (match["variant"] or "")[6:7]
    if match["p"] is None:
        return ModelName(family, depth, width, variant)
    try:
        p = parse_fraction(match["p"])
    except ValueError as error:
        raise _unknown(architecture, str(error)) from None
    if p > 1:
        raise _unknown(architecture, f"has p = {p}, while p is a share of channels, at most 1")
    return ModelName(family, depth, width, variant, p)


def parse_fraction(text: str) -> Fraction:
    """``"3d4"`` is 3/4, ``"2"`` is 2; ValueError for anything that is no positive fraction."""
    match = re.fullmatch(r"(\d+)(?:d(\d+))?", text)
    if match is None or int(match[1]) == 0 or int(match[2] or 1) == 0:
        raise ValueError(f"has the fraction '{text}', while '3d4' or '1' would be one")
    return Fraction(int(match[1]), int(match[2] or 1))


def list_models(pattern: str = "*") -> list[str]:
    """The architectures that have a name in the paper's tables, sorted, and their like.

    ``pattern`` selects by shell wildcards, as in ``list_models("cifar_resnet*_bsconvu")``.
    :func:`get_model` builds other widths and other values of p as well.
    """
    bases = [
        f"{family}{depth}"
        for family in ("resnet", "preresnet", "cifar_resnet", "cifar_preresnet")
        for depth in BLOCKS[family]
    ]
    bases += [f"cifar_wrn{depth}_{width}" for depth, width in LISTED_WRNS]
    names = [base + variant for base in bases for variant in LISTED_VARIANTS]
    return sorted(name for name in names if fnmatchcase(name, pattern.lower()))


def _unknown(architecture: str, problem: str) -> ValueError:
    near = get_close_matches(architecture.lower(), list_models(), n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; list_models() has them all"
    return ValueError(f"'{architecture}' {problem}{hint}")
