"""The table of docs/migrating.md, tried on bsconv 0.4.0 and on this package."""

import re

from golden import questions, recorded
from helpers.paths import ROOT


def table() -> dict[str, tuple[bool, bool]]:
    text = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| (yes|no) \| (yes|no) \|$", text, re.MULTILINE)
    return {row: (before == "yes", here == "yes") for row, before, here in rows}


def test_the_table_is_true_of_both_packages() -> None:
    theirs = recorded("questions")
    assert table() == {row: (theirs[row], here) for row, here in questions.questions().items()}
