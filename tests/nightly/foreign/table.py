"""docs/foreign_models.md: every model that was tried, what is replaced in it, and what is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .libraries import LIBRARIES, RULES

PAGE = Path(__file__).resolve().parents[3] / "docs" / "foreign_models.md"

INTRODUCTION = """\
# Models of other libraries

What `BSConvU_Replacer()` and `BSConvS_Replacer()` do to classification models that others wrote,
with random weights and batches of two images; `make nightly` writes this page, and
[reliability](reliability.md) has the summary. By default, convolutions of 3x3 and 5x5 are replaced.

The replacers keep those of other sizes (1x1: pointwise already), grouped ones, subclasses of
`Conv2d` (named here), which may compute something else, and those that BSConv would make larger.
A model *works* if `apply` did what `plan` said, and then for BSConv-U and BSConv-S the outputs
in eval and train mode have the shapes that the dense model's have, the same layers learn in the
backward pass, with finite gradients, and the penalty is finite and has gradients of its bases
alone. Where nothing is replaced, nothing more is tried. *By shapes*: on the meta device, which
computes no numbers, as are models of more than 100 million parameters and those that take more
than a minute otherwise.
"""
HEADER = (
    "model",
    "input",
    "convolutions",
    "replaced",
    "kept",
    "parameters: dense, U, S",
    "outcome",
)


def render(models: Sequence[Mapping[str, Any]]) -> str:
    """The page as Markdown."""
    parts = [INTRODUCTION]
    for library in LIBRARIES:
        rows = [row(found) for found in models if found["library"] == library]
        parts += [
            f"## {library}\n",
            f"{len(rows)} models: {RULES[library]}.\n",
            f"| {' | '.join(HEADER)} |",
            "| --- | --- | ---: | ---: | --- | --- | --- |",
            *rows,
            "",
        ]
    return "\n".join(parts)


def row(found: Mapping[str, Any]) -> str:
    cells = [f"`{found['model']}`", size(found), *["-"] * 4, outcome(found)]
    if "convolutions" in found:
        replaced = sorted(set(found["replaced"].values()), reverse=True)
        kept = sorted(found["kept"].items(), key=lambda item: -item[1])
        cells[2:6] = [
            str(found["convolutions"]),
            " (U), ".join(map(str, replaced)) + (" (S)" if len(replaced) == 2 else ""),
            ", ".join(f"{count} {reason}" for reason, count in kept) or "none",
            parameters(found["parameters"]),
        ]
    return f"| {' | '.join(cells)} |"


def size(found: Mapping[str, Any]) -> str:
    return "x".join(map(str, found["input"][1:])) if "input" in found else "-"


def parameters(counts: Mapping[str, int]) -> str:
    if len(set(counts.values())) == 1:
        return f"{counts['dense'] / 1e6:.2f} M"
    return ", ".join(f"{count / 1e6:.2f}" for count in counts.values()) + " M"


def outcome(found: Mapping[str, Any]) -> str:
    text: str = found["outcome"].replace("|", "/")
    if found.get("device") == "meta":
        text += ", by shapes"
    if "exported" in found:
        text += f"; as {found['exported']} too"
    return text


def write(models: Sequence[Mapping[str, Any]]) -> None:
    """Write the page."""
    PAGE.write_text(render(models), encoding="utf-8")
