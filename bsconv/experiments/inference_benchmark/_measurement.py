"""The seconds and the cost of one network in one treatment."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

AS_GIVEN, OPTIMISED, COMPILED = "as given", "optimised", "optimised, compiled"
DENSE = "dense"


@dataclass(frozen=True)
class Measurement:
    """One network in one treatment: its cost for one image, and the seconds of a batch by round."""

    batch_size: int
    network: str
    computed: str
    parameters: int
    flops: int
    macs: int
    seconds: tuple[float, ...]
    peak_bytes: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest of the middle half of the rounds: the quartiles."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    @property
    def images_per_second(self) -> float:
        return self.batch_size / self.median

    @property
    def called(self) -> str:
        return f"{self.network} ({self.computed})"
