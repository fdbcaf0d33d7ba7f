"""The cost and the seconds of one network, as given or optimised."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

AS_GIVEN, OPTIMISED, COMPILED = "as given", "optimised", "optimised, compiled"
DENSE = "dense"


@dataclass(frozen=True)
class Measurement:
    """One network, computed in one way: its cost for one image, its seconds for a batch by round.

    ``peak_bytes`` is the memory that a call takes beyond weights and input, None on a CPU.
    """

    batch_size: int
    network: str
    computed: str
    parameters: int
    flops: int
    macs: int
    seconds: tuple[float, ...]
    peak_bytes: int | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles of the rounds."""
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
