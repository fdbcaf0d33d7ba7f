"""One's own runs, side by side: what each is, costs and reached."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..basics.tables import CsvTable, Row, text_table
from ..pytorch import ModelProfiler
from ..pytorch._tools.model_tree import parameter_count
from .classifier import Run

if TYPE_CHECKING:
    from .plotting import Figure


class RunsTable(CsvTable):
    """The runs in ``folders``; ``str`` gives a table.

    OSError for a folder that is not there, ValueError with one line for one that holds no run.
    """

    def __init__(self, folders: Iterable[str | os.PathLike[str]]) -> None:
        self.runs = [Run(folder) for folder in folders]
        rows = [_row(run) for run in self.runs]
        self.header, self.cells = list(rows[0]), [list(row.values()) for row in rows]

    def __str__(self) -> str:
        return text_table(self.header, self.cells)

    def _csv_rows(self) -> tuple[Sequence[str], Sequence[Row]]:
        return self.header, self.cells

    def figure(self) -> Figure:
        """Test top-1 after each epoch."""
        from . import plotting

        longest = max(len(run.history) for run in self.runs)
        curves = {}
        for run in self.runs:
            missing = [math.nan] * (longest - len(run.history))
            curves[str(run.path)] = [epoch.test_top1 for epoch in run.history] + missing
        epochs = range(1, longest + 1)
        return plotting.curves(epochs, curves, xlabel="epoch", ylabel="test top-1 in %")


def _row(run: Run) -> dict[str, str | int]:
    config, history = run.config, run.history
    images = (1, 3, run.image_size, run.image_size)
    ends = (history.last, history.best) if history else ()
    last, best = [f"{epoch.test_top1:.2f}" for epoch in ends] or ["", ""]
    return {
        "run": str(run.path),
        "model": config.network,
        "data": Path(config.dataset).name,
        "parameters": parameter_count(run.model),
        "MACs": ModelProfiler(run.model, images).total_mac_count,
        "epochs": len(history),
        "of": config.epochs,
        "last top-1": last,
        "best top-1": best,
        "train loss": f"{ends[0].train_loss - ends[0].penalty:.4f}" if ends else "",
        "penalty": f"{ends[0].penalty:.4f}" if ends else "",
        "seconds": f"{sum(epoch.seconds for epoch in history):.1f}",
    }
