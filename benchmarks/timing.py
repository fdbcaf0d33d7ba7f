"""Times compared: medians and their spread."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Spread:
    """A middle with the smallest and the largest that was seen."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_short(self.middle)} ({_short(self.low)} to {_short(self.high)})"


@dataclass(frozen=True)
class Comparison:
    """Times of several contenders for the same work, round by round, in seconds."""

    what: str
    seconds: dict[str, list[float]]
    reference: str = "ours"  # ratios are times relative to its time
    notes: dict[str, str] = field(default_factory=dict)  # by contender

    def time(self, name: str) -> Spread:
        """Median of a contender's seconds."""
        seconds = self.seconds[name]
        return Spread(statistics.median(seconds), min(seconds), max(seconds))

    def ratio(self, name: str) -> Spread:
        """Ratio of the medians, and the smallest and largest ratio within one round."""
        own, others = self.seconds[name], self.seconds[self.reference]
        rounds = [mine / its for mine, its in zip(own, others, strict=True)]
        middle = statistics.median(own) / statistics.median(others)
        return Spread(middle, min(rounds), max(rounds))

    def __str__(self) -> str:
        lines = [self.what]
        for name in self.seconds:
            line = f"  {name:<12} {self.time(name)!s:>28} s"
            if name != self.reference:
                line += f"   {self.ratio(name)!s:>24} times {self.reference}"
            if name in self.notes:
                line += f"   {self.notes[name]}"
            lines.append(line)
        return "\n".join(lines)


def _short(value: float) -> str:
    """Three digits, or the whole number where that has more."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
