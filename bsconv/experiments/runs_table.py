"""One's own runs, side by side: what each is, costs and reached."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

from ..pytorch import ModelProfiler
from ..pytorch._tools.model_tree import parameter_count
from ..pytorch._tools.tables import Row, text_table, write_csv
from .classifier import Run

HEADER = (
    "run", "model", "data", "parameters", "MACs", "epochs", "of", "last top-1", "best top-1",
    "seconds",
)  # fmt: skip


class RunsTable:
    """The runs in ``folders``; ``str`` gives a table.

    OSError for a folder that is not there, ValueError with one line for one that holds no run.
    """

    def __init__(self, folders: Iterable[str | os.PathLike[str]]) -> None:
        self.runs = [Run(folder) for folder in folders]

    @property
    def curves(self) -> tuple[list[int], dict[str, list[float]]]:
        """The epochs, and test top-1 after each of them by the name of the run; then NaN."""
        longest = max(len(run.history) for run in self.runs)
        accuracies = {
            str(run.path): [epoch.test_top1 for epoch in run.history]
            + [math.nan] * (longest - len(run.history))
            for run in self.runs
        }
        return [*range(1, longest + 1)], accuracies

    def __str__(self) -> str:
        return text_table(HEADER, [_row(run) for run in self.runs])

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """A line for each run; OSError with one line if it cannot be written."""
        write_csv(path, HEADER, [_row(run) for run in self.runs])


def _row(run: Run) -> Row:
    config, history = run.config, run.history
    form = "" if config.bsconv is None else f" as BSConv-{config.bsconv.upper()}"
    macs = ModelProfiler(run.model, (1, 3, run.image_size, run.image_size)).total_mac_count
    reached = ["", ""]
    if history:
        reached = [f"{epoch.test_top1:.2f}" for epoch in (history.last, history.best)]
    seconds = f"{sum(epoch.seconds for epoch in history):.1f}"
    return (
        str(run.path),
        Path(config.model).name + form,
        Path(config.dataset).name,
        parameter_count(run.model),
        macs,
        len(history),
        config.epochs,
        *reached,
        seconds,
    )
