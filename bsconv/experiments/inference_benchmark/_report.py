"""What was measured, as a table, as CSV and as a sentence that says which network is fastest."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ...basics.tables import CsvTable, Table, text_table

AS_GIVEN, DENSE = "as given", "dense"
PUBLISHED = "BSConv-U", "BSConv-S"  # as given, the same calls of PyTorch in the same order


@dataclass(frozen=True)
class Measurement:
    """One network, computed in one way: its cost for one image, its seconds for a batch by round.

    ``peak_bytes`` is what a call takes beyond weights and input, ``limit_seconds`` the roofline's.
    """

    batch_size: int
    network: str
    computed: str
    parameters: int
    flops: int
    macs: int
    seconds: tuple[float, ...]
    peak_bytes: int | None
    limit_seconds: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles of the rounds."""
        low, high = np.quantile(self.seconds, (0.25, 0.75)).tolist()
        return low, high

    def __str__(self) -> str:
        return f"{self.network} ({self.computed})"


@dataclass(frozen=True)
class Setting:
    """Where and how all was measured; ``threads`` is None for a GPU."""

    model: str
    device: str
    threads: int | None
    dtype: str
    input_size: str

    @classmethod
    def here(cls, model: str, device: torch.device, dtype: str, size: str) -> Setting:
        if device.type == "cuda":
            return cls(model, torch.cuda.get_device_name(device), None, dtype, size)
        name = f"{device.type.upper()} ({platform.machine() or 'unknown'})"
        return cls(model, name, torch.get_num_threads(), dtype, size)

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
        "times dense", "images/s", "limit ms", "reached", "peak MB",
    )  # fmt: skip

    setting: Setting
    rows: tuple[Measurement, ...]
    notes: tuple[str, ...] = ()

    def times_dense(self, row: Measurement) -> float | None:
        """Its seconds divided by those of the dense network computed in the same way, if any."""
        dense = {(x.batch_size, x.computed): x.median for x in self.rows if x.network == DENSE}
        seconds = dense.get((row.batch_size, row.computed))
        return None if seconds is None else row.median / seconds

    def is_fastest(self, row: Measurement) -> bool:
        """Of the rows of its network and its size of batches."""
        return row in _bests(self.rows, row.batch_size)

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
            f"{model}images of {self.setting.input_size}; FLOPs and MACs of one image; ms of a "
            f"batch, median of {rounds} round{'' if rounds == '1' else 's'} in turns, spread: "
            "the middle half of them; *: the fastest of its network; (0.4.0): the same in "
            "the published package; reached: the limit's share; peak MB: what a call takes beyond "
            "weights and input, on GPUs"
        )
        return "\n".join([table, legend, *self.notes, self.summary])

    def figure(self) -> Any:
        """Milliseconds per image: a panel for each size of batches, bars for each network."""
        from .. import plotting

        panels: dict[str, dict[str, dict[str, tuple[float, float, float]]]] = {}
        for row in self.rows:
            panel = panels.setdefault(f"batches of {row.batch_size}", {})
            series = "as PyTorch gives it" if row.computed == AS_GIVEN else "in the fastest engine"
            middle, low, high = (1e3 * x / row.batch_size for x in (row.median, *row.spread))
            if row.computed == AS_GIVEN or self.is_fastest(row):
                panel.setdefault(series, {})[row.network] = middle, low, high
        title = f"{self.setting.model}: inference on this {self.setting}"
        return plotting.timing_bars(panels, ylabel="ms per image", title=title)

    def _table_rows(self) -> list[tuple[str | int, ...]]:
        return [
            (
                row.batch_size, row.network,
                row.computed
                + " (0.4.0)" * (row.computed == AS_GIVEN and row.network.startswith(PUBLISHED))
                + " *" * self.is_fastest(row),
                row.parameters, row.flops, row.macs, f"{1e3 * row.median:8.2f}",
                " to ".join(f"{1e3 * seconds:.2f}" for seconds in row.spread),
                "" if (ratio := self.times_dense(row)) is None else f"{ratio:11.2f}",
                round(row.batch_size / row.median),
                f"{1e3 * row.limit_seconds:8.2f}",
                f"{row.limit_seconds / row.median:7.0%}",
                "" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:7.1f}",
            )
            for row in self.rows
        ]  # fmt: skip

    def _csv_rows(self) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
        lines = [
            {
                **asdict(self.setting), **asdict(row),
                "rounds": len(row.seconds), "seconds": row.median,
                "seconds_low": row.spread[0], "seconds_high": row.spread[1],
                "times_dense": self.times_dense(row),
                "images_per_second": row.batch_size / row.median,
                "limit_reached": row.limit_seconds / row.median,
                "fastest": self.is_fastest(row),
            }
            for row in self.rows
        ]  # fmt: skip
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
