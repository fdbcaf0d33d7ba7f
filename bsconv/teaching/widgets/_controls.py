"""Controls as plain data: what may be chosen, and what a value becomes when the choice changes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """A slider over the whole numbers from ``low`` to ``high``."""

    label: str
    low: int
    high: int
    value: int

    def fitted(self, value: int) -> int:
        """The allowed value nearest to ``value``."""
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class Choice:
    """One of ``options``, ``{what is shown: value}``, as a slider or as ``buttons``.

    ``value`` is the one to begin with, and the one to return to where an option has gone.
    """

    label: str
    options: Mapping[str, Any]
    value: Any
    buttons: bool = False

    def fitted(self, value: Any) -> Any:
        return value if value in self.options.values() else self.value


@dataclass(frozen=True)
class Words:
    """A line to type into, taken when the Enter key is pressed."""

    label: str
    value: str = ""
    hint: str = ""

    def fitted(self, value: str) -> str:
        return value


Control = Range | Choice | Words
