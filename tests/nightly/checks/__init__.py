"""One file for each check: ``TITLE``, ``run()`` and ``section(figures)``, see ../README.md."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol, cast

# as they follow one another on the page
NAMES = (
    "surgery",
    "foreign_models",
    "under_fire",
    "hostile_files",
    "oldest_versions",
    "notebook_damage",
    "numbers",
    "mutation",
)


class Check(Protocol):
    """What a module in this folder offers."""

    TITLE: str

    def run(self) -> dict[str, Any]:
        """Figures, as JSON takes them; raises where a promise is broken."""

    def section(self, figures: Mapping[str, Any]) -> str:
        """The figures in Markdown, without heading."""


def load(name: str) -> Check:
    """The check of that name; each is imported when it is needed only."""
    return cast(Check, import_module(f"{__name__}.{name}"))
