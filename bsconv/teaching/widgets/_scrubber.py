"""Recorded runs up to an epoch: curves, and the numbers they have reached there."""

from collections.abc import Sequence
from statistics import mean
from typing import Any, NamedTuple

from ...experiments import plotting
from ...experiments.results import Record, Summary, load_records, summarize
from ...experiments.results.published import VARIANTS
from ._controls import Choice, Control, Range
from ._panel import Values, View, panel
from ._text import paragraph, table


class Standing(NamedTuple):
    """Where the runs of one network stand after an epoch: means over the runs, and the range."""

    variant: str
    runs: int
    train_loss: float
    top1: float
    lowest: float
    highest: float
    learning_rate: float


def comparisons(records: Sequence[Record]) -> dict[str, dict[str, Summary]]:
    """Recorded runs that stand side by side: ``{title: {"dense" or "BSConv-U" ...: runs}}``.

    They share the network, the data, the recipe, the number of epochs and settings of their own;
    how the steps were computed is not one of these.
    """
    found: dict[str, dict[str, Summary]] = {}
    for summary in summarize(records):
        title = f"{summary.family}, {summary.config.dataset}, {summary.recipe}, {summary.length}"
        found.setdefault(title, {}).setdefault(summary.variant, summary)
    return {
        title: {name: found[title][name] for name in VARIANTS if name in found[title]}
        for title in sorted(found, key=lambda title: -len(found[title]))
    }


def standing(variant: str, summary: Summary, epoch: int) -> Standing:
    """After ``epoch``, counted from 1; ValueError for one that the runs do not have."""
    if not 1 <= epoch <= summary.config.epochs:
        raise ValueError(f"epoch needs to be 1 to {summary.config.epochs}, got {epoch}")
    there = [run.epochs[epoch - 1] for run in summary.runs]
    top1 = [metrics.test_top1 for metrics in there]
    return Standing(
        *(variant, len(there), mean(metrics.train_loss for metrics in there)),
        *(mean(top1), min(top1), max(top1), mean(metrics.learning_rate for metrics in there)),
    )


class _Scrubber:
    title = "training scrubber"

    def __init__(self, found: dict[str, dict[str, Summary]]) -> None:
        self.found = found

    def controls(self, values: Values) -> dict[str, Control]:
        titles = list(self.found)
        runs = self.found[values.get("runs", titles[0])]
        last = next(iter(runs.values())).config.epochs
        return {
            "runs": Choice("recorded runs", {title: title for title in titles}, titles[0]),
            "epoch": Range(f"epoch (1 to {last})", 1, last, last),
        }

    def view(self, values: Values) -> View:
        epoch, runs = values["epoch"], self.found[values["runs"]]
        there = [standing(name, summary, epoch) for name, summary in runs.items()]
        last = next(iter(runs.values())).config.epochs
        reached = ", ".join(f"{s.variant} {s.top1:.2f} %" for s in there)
        summary = f"{values['runs']}: after epoch {epoch} of {last}, test top-1 is {reached}."
        rows = [
            (
                *(s.variant, s.runs, f"{s.train_loss:.3f}", f"{s.top1:.2f}"),
                *(f"{s.lowest:.2f} to {s.highest:.2f}", f"{s.learning_rate:.4f}"),
            )
            for s in there
        ]
        header = ("network", "runs", "training loss", "test top-1 (%)", "range", "learning rate")

        def draw() -> plotting.Figure:
            panels: dict[str, dict[str, list[list[float]]]] = {
                "training loss": {},
                "test top-1": {},
            }
            for name, one in runs.items():
                rows = [run.epochs[:epoch] for run in one.runs]
                panels["training loss"][name] = [[m.train_loss for m in row] for row in rows]
                panels["test top-1"][name] = [[m.test_top1 for m in row] for row in rows]
            figure = plotting.curve_panels(
                panels, xlabel="epoch", ylabels=("loss, with penalty", "accuracy (%)")
            )
            every = [m for one in runs.values() for run in one.runs for m in run.epochs]
            for axis, what in zip(figure.axes, ("train_loss", "test_top1"), strict=True):
                numbers = [getattr(m, what) for m in every]
                room = 0.05 * (max(numbers) - min(numbers)) or 1
                # the whole run's, so that nothing jumps while the epoch moves
                axis.set_xlim(0.5, last + 0.5)
                axis.set_ylim(min(numbers) - room, max(numbers) + room)
            return figure

        return View(summary, table(header, rows), draw)


class _NoRuns:
    title = "training scrubber"

    def controls(self, values: Values) -> dict[str, Control]:
        return {}

    def view(self, values: Values) -> View:
        return View(
            "no recorded runs in results/.", paragraph("bsconv train makes runs, see results/.")
        )


def training_scrubber(records: Sequence[Record] | None = None) -> Any:
    """Controls "runs" and "epoch": recorded runs up to that epoch, as curves and as a table.

    ``records`` are those of the project, unless given; where there are none, the panel says so.
    """
    found = comparisons(load_records() if records is None else records)
    return panel(_Scrubber(found) if found else _NoRuns())
