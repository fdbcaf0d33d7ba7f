"""Layers, blocks and pipelines as boxes with arrows between them."""

import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ._figures import COLOURS, HEIGHT, WIDTH, new_figure

Brackets = Mapping[str, Sequence[tuple[int, int]]]

# the arrow between two boxes, a box, an arrow with text
_ITEM = re.compile(r"(?<=\])(?=\[)|\[[^]]*\]|[^[]+")
_ARROW, _LETTER, _BOLD = 0.3, 0.068, 0.08  # inches: an arrow, a letter, a bold one
_LINE, _GAP = 0.125, 0.2  # inches: a line of text, and what is free between two rows


def schematic(
    chains: Mapping[str, str],
    *,
    brackets: Mapping[str, Brackets] | None = None,
    linked: bool = False,
    title: str = "",
) -> Figure:
    """A row of boxes for each chain, joined by arrows: ``"M, HxW [1x1|pw|NxM] N, HxW"``.

    Brackets hold the lines of a box, other text stands on the arrow, after a comma below it. Boxes
    with the same first line have the same colour; ``[(BN)]`` is a box that may be left out, and
    dashed. ``brackets[row][name]`` spans boxes below the row, from the first to the last of each
    pair. ``linked`` puts boxes into columns, and leads a dotted arrow from each down to the next
    row.
    """
    rows = {name: _ITEM.findall(chain) for name, chain in chains.items()}
    heads = [_lines(item)[0] for row in rows.values() for item in row if item.startswith("[")]
    colours = dict(zip(dict.fromkeys(heads), cycle(COLOURS), strict=False))
    high = _LINE * max(len(_lines(item)) for row in rows.values() for item in row) + 0.12
    widths = [[_width(item) for item in row] for row in rows.values()]
    if linked:
        widths = [[max(column) for column in zip(*widths, strict=True)]] * len(widths)
    spanned = {name: (brackets or {}).get(name, {}) for name in chains}
    depth = sum(high + _GAP + 0.3 * len(of_row) for of_row in spanned.values())
    figure = new_figure((WIDTH, min(HEIGHT, 0.4 + depth)), title)
    axis = figure.subplots()
    label = max(len(line) for name in rows for line in name.split("\n"))
    axis.set_xlim(-0.2 - _BOLD * label, max(map(sum, widths)) + 0.1)
    axis.set_ylim(high / 2 + _GAP - depth - 0.05, high / 2 + 0.05)
    axis.axis("off")
    at, above = 0.0, None
    for (name, row), wide in zip(rows.items(), widths, strict=True):
        axis.text(-0.1, at, name, ha="right", va="center", fontweight="bold", fontsize=8)
        spans = _draw_row(axis, row, wide, at, high, colours)
        if linked and above is not None:
            for left, right in spans:
                middle = (left + right) / 2
                ends = (middle, at + high / 2), (middle, above - high / 2)
                axis.annotate("", *ends, arrowprops={"arrowstyle": "->", "linestyle": ":"})
        above, at = at, at - high / 2
        for text, pairs in spanned[name].items():
            at -= 0.3
            for first, last in pairs:
                left, right = spans[first][0] + 0.05, spans[last][1] - 0.05
                edge = [at + 0.2, at + 0.1, at + 0.1, at + 0.2]
                axis.plot([left, left, right, right], edge, "-", color="#444444", marker="")
                white = {"facecolor": "white", "linewidth": 0, "pad": 1}
                _write(axis, (left + right) / 2, at + 0.1, text, bbox=white)
        at -= high / 2 + _GAP
    return figure


def _lines(item: str) -> list[str]:
    """Of a box, or of an arrow that is at most two."""
    if item.startswith("["):
        return item.strip("[]").split("|")
    over, _, under = item.strip().partition(", ")
    return [over, under]


def _width(item: str) -> float:
    """Of a box or an arrow, in inches."""
    return _LETTER * max(map(len, _lines(item))) + (0.14 if item.startswith("[") else _ARROW)


def _write(axis: Axes, x: float, y: float, text: str, va: str = "center", **look: Any) -> None:
    axis.text(x, y, text, ha="center", va=va, fontsize=8, linespacing=1.1, **look)


def _draw_row(
    axis: Axes, row: list[str], widths: list[float], at: float, high: float, colours: dict[str, str]
) -> list[tuple[float, float]]:
    """Draws a row whose middle is ``at``; from where to where its boxes reach."""
    left, spans = 0.0, []
    for item, width in zip(row, widths, strict=True):
        right, middle, lines = left + width, left + width / 2, _lines(item)
        if item.startswith("["):
            corner, colour = (left + 0.04, at - high / 2 + 0.04), colours[lines[0]]
            dash = "--" if lines[0].startswith("(") else "-"
            box = FancyBboxPatch(corner, width - 0.08, high - 0.08, boxstyle="round,pad=0.04")
            box.set(facecolor=(colour, 0.15), edgecolor=colour, linestyle=dash)
            axis.add_patch(box)
            _write(axis, middle, at, "\n".join(lines).strip("()"))
            spans.append((left, right))
        else:
            axis.annotate("", (right, at), (left, at), arrowprops={"arrowstyle": "->"})
            _write(axis, middle, at + 0.03, lines[0], "bottom")
            _write(axis, middle, at - 0.04, lines[1], "top", color="#555555")
        left = right
    return spans
