"""docs/reliability.md, made from what the checks recorded."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from . import checks, records

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"

INTRODUCTION = """\
# Reliability

What was tried to make this library compute something else, lose a run or execute what it only
should read, and what came of it. Every figure here was measured by the command beside it;
`make nightly` runs all of them and writes this page anew from what they recorded in
`tests/nightly/results/`.
"""


def render() -> str:
    """The page as Markdown; checks that were never run are named as such."""
    found = {name: records.read(name) for name in checks.NAMES}
    parts = [INTRODUCTION.strip() + _altogether(found.values())]
    for name, record in found.items():
        check = checks.load(name)
        if record is None:
            parts += [f"## {check.TITLE}", f"Not measured yet: `python -m nightly {name}`."]
            continue
        parts.append(f"## {check.TITLE}")
        torch = record["versions"]["torch"].split("+")[0]
        parts.append(check.section(record["figures"]).strip())
        parts.append(
            f"`python -m nightly {name}`: {record['seconds'] / 60:.1f} minutes on"
            f" {record['machine']}, torch {torch}, {record['date']}."
        )
    return "\n\n".join(parts) + "\n"


def _altogether(found: Collection[dict[str, Any] | None]) -> str:
    """How long all checks take, where all were measured."""
    seconds = [record["seconds"] for record in found if record is not None]
    if len(seconds) < len(found):
        return ""
    return f" Together they took {sum(seconds) / 60:.0f} minutes."


def write() -> None:
    """Write the page anew."""
    PAGE.write_text(render(), encoding="utf-8")
