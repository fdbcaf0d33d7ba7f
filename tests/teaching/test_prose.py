"""The figures in the prose of the notebooks are those that the notebooks print."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from helpers.derived_figures import CONSTANTS, DERIVED, KNOWN
from helpers.notebooks import FOLDER, NOTEBOOKS, cells_of

BY_NUMBER = {path.stem[:2]: path for path in NOTEBOOKS}
SEEN = "**What you should see.**"
ENDS = re.compile(r"\n## |\*\*(?:Predict|In the paper)")
# no figures: formulas, code, links, references, tables, sizes, places, years
ASIDE = re.compile(
    r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|\]\([^)]*\)|\*\*References.*|^(?:    |\|)[^\n]*"
    r"|^(?:## )?\d+\.? |\d+ x \d+|(?<![.\d])0\d\b"
    r"|(?:[Ss]ections?|[Nn]otebooks?|[Ee]xercise|[Ff]igure|stages?) \d[\d.]*"
    r"(?:(?:,| and| to) \d[\d.]*)*|\b(?:19|20)\d\d\b",
    re.DOTALL | re.MULTILINE,
)
FIGURE = r"(?<![\w.,/=-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w/]|[.,]\d|-\w)(?: million| %)?"
PRINTED = re.compile(r"(?<![\w.])\d[\d,_]*(?:\.\d+)?(?:e[-+]?\d+)?")
PARTS = ("half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
SHARE = rf"\b(two )?({'|'.join(PARTS)})s?\b"

Cells = list[dict[str, Any]]


class Prose(NamedTuple):
    """Prose of one cell, and the figures that may stand in it."""

    cell: int
    text: str
    printed: list[str]


def printed_by(cell: dict[str, Any]) -> list[str]:
    shown = [output.get("data", {}) for output in cell["outputs"]]
    texts = [output.get("text", "") for output in cell["outputs"]]
    texts += [data.get("text/html") or data.get("text/plain", "") for data in shown]
    return PRINTED.findall("\n".join("".join(text) for text in texts))


def prose_of(cells: Cells) -> tuple[list[Prose], list[str]]:
    """All prose but header and exercises; all figures, also of the code and of linked pages.

    "What you should see" may name what was printed since the last one, other prose any figure.
    """
    found: list[Prose] = []
    every: list[str] = []
    recent: list[str] = []
    for index, cell in enumerate(cells):
        text = cell["source"]
        if cell["cell_type"] == "code":
            recent += printed_by(cell)
            every += PRINTED.findall(text) + printed_by(cell)
        elif index and not {"exercise", "exercise-solution"} & {*cell["tags"]}:
            start = text.find(SEEN) if SEEN in text else len(text)
            end = match.start() if (match := ENDS.search(text, start)) else len(text)
            pages = re.findall(r"\]\(\.\./(docs/\w+\.md)", text)
            linked = [(FOLDER.parent / page).read_text(encoding="utf-8") for page in pages]
            every += PRINTED.findall("\n".join(linked))
            found.append(Prose(index, text[:start] + text[end:], every))
            if start < end:
                recent += PRINTED.findall("\n".join(linked))
                found.append(Prose(index, text[start:end], recent))
                recent = []
    return found, every


def number(text: str) -> float:
    return float(text.replace(",", "").replace("_", ""))


def tells(said: str, value: float) -> bool:
    """Whether the prose means ``value``: as it rounds it; a share in words, to a tenth."""
    if share := re.fullmatch(SHARE, said, re.IGNORECASE):
        meant = (2 if share[1] else 1) / (PARTS.index(share[2].lower()) + 2)
        return abs(value / meant - 1) <= 0.1
    figure, _, unit = said.partition(" ")
    if unit == "million" and value >= 1e5:
        value /= 1e6
    digits = len(figure.partition(".")[2])
    return abs(value - number(figure)) <= 0.5000001 * 10.0**-digits


def stands_in(said: str, printed: list[str]) -> bool:
    """Whether it was printed, perhaps with more digits, or as the share that it is in percent."""
    return any(
        tells(said, number(text))
        or ("%" in said and "." in text and tells(said, 100 * number(text)))
        for text in printed
    )


def faults(cells: Cells, derived: dict[str, str]) -> Iterator[str]:
    """Figures in the prose that do not follow from what the notebook prints."""
    prose, every = prose_of(cells)
    values = {number(text) for text in every} | CONSTANTS
    covered: dict[int, list[range]] = {}
    for words, formula in derived.items():
        places = [
            (i, piece.text.find(words)) for i, piece in enumerate(prose) if words in piece.text
        ]
        if not places:
            yield f"no prose says {words!r} any more, for which there is {formula!r}"
        for i, at in places:
            covered.setdefault(i, []).append(range(at, at + len(words)))
        for literal in PRINTED.findall(formula):
            if number(literal) not in values and not re.fullmatch(r"10*(e\d)?", literal):
                yield f"{words!r} rests on {literal}, which nothing prints"
        said = [match[0] for match in re.finditer(f"{FIGURE}|{SHARE}", words, re.IGNORECASE)][-1]
        if not tells(said, float(eval(formula, dict(KNOWN)))):
            yield f"{words!r} is not {formula} = {eval(formula, dict(KNOWN))}"
    for i, piece in enumerate(prose):
        figures = ASIDE.sub(lambda match: " " * len(match[0]), piece.text)
        for match in re.finditer(FIGURE, figures):
            if any(match.start() in span for span in covered.get(i, ())):
                continue
            if not stands_in(match[0], piece.printed):
                around = piece.text[max(0, match.start() - 30) : match.end() + 30]
                yield f"cell {piece.cell} says {match[0]}, which is not printed: {around!r}"


@pytest.mark.parametrize("name", BY_NUMBER)
def test_the_prose_says_what_the_outputs_say(name: str) -> None:
    found = list(faults(cells_of(BY_NUMBER[name]), DERIVED.get(name, {})))
    assert not found, "\n".join([BY_NUMBER[name].name, *found])


@pytest.mark.parametrize(
    ("name", "stored", "other"),
    [
        ("01", "94.1% of the weights, 92.4%", "84.1% of the weights, 82.4%"),
        ("03", " 41.77 MFLOPs", " 43.77 MFLOPs"),
        ("04", "0.29  0.22  0.19", "0.33  0.25  0.21"),
        ("05", "classifier 28 % right", "classifier 25 % right"),
        # prose as it once stood there
        ("03", "a tenth in S", "a fifth in S"),
        ("07", "about 2.2 points", "about 1.5 points"),
        ("08", "17 % of the parameters", "13 % of the parameters"),
    ],
)
def test_another_output_and_other_prose_are_found(name: str, stored: str, other: str) -> None:
    before = json.dumps(cells_of(BY_NUMBER[name]))
    assert stored in before
    assert any(faults(json.loads(before.replace(stored, other)), DERIVED[name]))
