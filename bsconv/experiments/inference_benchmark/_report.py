"""What was measured, as a table, as CSV and as a sentence that says which network is fastest."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...basics.tables import CsvTable, Table, text_table

if TYPE_CHECKING:
    from ..plotting import Figure

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
        low, high = np.quantile(self.seconds, (0.25, 0.75)).tolist()
        return low, high

    @property
    def images_per_second(self) -> float:
        return self.batch_size / self.median

    def __str__(self) -> str:
        return f"{self.network} ({self.computed})"


@dataclass(frozen=True)
class Setting:
    """Where and how all was measured; ``threads`` is None for a GPU."""

    model: str
    device: str
    threads: int | None
    dtype: str
    input_size: tuple[int, ...]

    @classmethod
    def here(cls, model: str, device: torch.device, dtype: str, size: tuple[int, ...]) -> Setting:
        if device.type == "cuda":
            return cls(model, torch.cuda.get_device_name(device), None, dtype, size)
        name = f"{device.type.upper()} ({platform.machine() or 'unknown'})"
        return cls(model, name, torch.get_num_threads(), dtype, size)

    @property
    def size_text(self) -> str:
        return "x".join(map(str, self.input_size))

    def __str__(self) -> str:
        threads = {None: "", 1: " with 1 thread"}.get(self.threads, f" with {self.threads} threads")
        return f"{self.device}{threads} in {self.dtype}"


@dataclass(frozen=True)
class InferenceBenchmark(Table, CsvTable):
    """Prints as a table that ends in a sentence: which network is the fastest, if that is clear.

    Two networks cannot be told apart where the middle halves of their rounds overlap.
    """

    header = (
        "batch", "network", "computed", "parameters", "FLOPs", "MACs", "ms", "spread",
        "times dense", "images/s", "peak MB",
    )  # fmt: skip

    setting: Setting
    rows: tuple[Measurement, ...]
    notes: tuple[str, ...] = ()

    def times_dense(self, row: Measurement) -> float | None:
        """Its seconds divided by those of the dense network computed in the same way, if any."""
        for other in self.rows:
            same = (other.computed == AS_GIVEN) == (row.computed == AS_GIVEN)
            if other.network == DENSE and other.batch_size == row.batch_size and same:
                return row.median / other.median
        return None

    @property
    def summary(self) -> str:
        """Each network at its best, for one size of batches after the other."""
        sizes = dict.fromkeys(row.batch_size for row in self.rows)
        text = "; ".join(_outcome(_bests(self.rows, size)) for size in sizes)
        once = all(len(row.seconds) == 1 for row in self.rows)
        note = ", in a single round, which has no spread" if once else ""
        return f"On this {self.setting}, {text}{note}."

    def __str__(self) -> str:
        table = text_table(*self._filled())
        model = f"{self.setting.model}: " if self.setting.model else ""
        rounds = " or ".join(dict.fromkeys(str(len(row.seconds)) for row in self.rows))
        legend = (
            f"{model}images of {self.setting.size_text}; FLOPs and MACs of one image; ms of a "
            f"batch, median of {rounds} round{'' if rounds == '1' else 's'} in turns, spread: "
            "the middle half of them; peak MB: what a call takes beyond weights and input, on GPUs"
        )
        return "\n".join([table, legend, *self.notes, self.summary])

    def figure(self) -> Figure:
        """Milliseconds per image: a panel for each size of batches, bars for each network."""
        from .. import plotting

        panels: dict[str, dict[str, dict[str, tuple[float, float, float]]]] = {}
        for row in self.rows:
            panel = panels.setdefault(f"batches of {row.batch_size}", {})
            series = "as PyTorch gives it" if row.computed == AS_GIVEN else "optimised"
            middle, low, high = (1e3 * x / row.batch_size for x in (row.median, *row.spread))
            panel.setdefault(series, {})[row.network] = middle, low, high
        title = f"{self.setting.model}: inference on this {self.setting}"
        return plotting.timing_bars(panels, ylabel="ms per image", title=title)

    def _table_rows(self) -> list[tuple[str | int, ...]]:
        return [
            (
                row.batch_size,
                row.network,
                row.computed,
                row.parameters,
                row.flops,
                row.macs,
                f"{1e3 * row.median:8.2f}",
                " to ".join(f"{1e3 * seconds:.2f}" for seconds in row.spread),
                "" if (ratio := self.times_dense(row)) is None else f"{ratio:11.2f}",
                round(row.images_per_second),
                "" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:7.1f}",
            )
            for row in self.rows
        ]

    def _csv_rows(self) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
        lines = [
            {
                **asdict(self.setting),
                "input_size": self.setting.size_text,
                **asdict(row),
                "rounds": len(row.seconds),
                "seconds": row.median,
                "seconds_low": row.spread[0],
                "seconds_high": row.spread[1],
                "times_dense": self.times_dense(row),
                "images_per_second": row.images_per_second,
            }
            for row in self.rows
        ]
        return list(lines[0]), [list(line.values()) for line in lines]


def _outcome(best: Sequence[Measurement]) -> str:
    first, batches = best[0], f"with batches of {best[0].batch_size}"
    if len(best) == 1:
        return f"{first} takes {1e3 * first.median:.2f} ms {batches}"
    fastest = [one for one in best if one is first or one.spread[0] <= first.spread[1]]
    slower = [one for one in best if one not in fastest]
    verb = "is" if len(fastest) == 1 else "are, within the spread of one another,"
    line = f"{' and '.join(map(str, fastest))} {verb} the fastest {batches}"
    if not slower:
        return line
    rival = next((one for one in slower if one.network == DENSE), slower[0])
    return f"{line}, {rival.median / first.median:.2f} times as fast as {rival}"


def _bests(rows: Sequence[Measurement], batch_size: int) -> list[Measurement]:
    """Each network in its faster treatment, the fastest network first."""
    best: dict[str, Measurement] = {}
    for row in sorted(rows, key=lambda row: row.median):
        if row.batch_size == batch_size:
            best.setdefault(row.network, row)
    return list(best.values())
