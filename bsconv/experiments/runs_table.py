"""One's own runs, side by side: what each is, costs and reached."""

from __future__ import annotations

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
        """Test top-1 after each epoch, and the last one by the size of the network."""
        from . import plotting
        from .results.published import family_and_variant, published_variants

        runs = {str(run.path): run for run in self.runs if run.history}
        accuracies = {name: [each.test_top1 for each in run.history] for name, run in runs.items()}
        sizes = {name: parameter_count(run.model) / 1e6 for name, run in runs.items()}
        families = {(family_and_variant(r.config.model)[0], r.config.dataset) for r in self.runs}
        published = [row for each in families for row in published_variants(*each).values()]
        points = [(row.million_parameters, row.top1) for row in published]
        return plotting.curves_and_sizes(accuracies, sizes, points)


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
