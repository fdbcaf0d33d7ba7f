"""Recorded runs up to an epoch: curves, and the numbers they have reached there."""

from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

from ...experiments import plotting
from ...experiments.results import Record, Summary, load_records, summarize
from ...experiments.results.published import VARIANTS
from ._controls import Choice, Control, Range
from ._panel import Panel, Values, View, paragraph, table


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
    """Recorded runs that may be compared: ``{title: {"dense" or "BSConv-U" ...: runs}}``.

    They share the network, the data, the recipe, the number of epochs and settings of their own;
    how the steps were computed may differ.
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
        variant,
        runs=len(there),
        train_loss=mean(metrics.train_loss for metrics in there),
        top1=mean(top1),
        lowest=min(top1),
        highest=max(top1),
        learning_rate=mean(metrics.learning_rate for metrics in there),
    )


class _Scrubber:
    title = "training scrubber"

    def __init__(self, found: dict[str, dict[str, Summary]]) -> None:
        self.found = found

    def controls(self, values: Values) -> dict[str, Control]:
        if not self.found:
            return {}
        titles = list(self.found)
        last = _last_epoch(self.found[values.get("runs", titles[0])])
        return {
            "runs": Choice("recorded runs", {title: title for title in titles}, titles[0]),
            "epoch": Range(f"epoch (1 to {last})", 1, last, last),
        }

    def view(self, values: Values) -> View:
        if not self.found:
            return View("no recorded runs in results/.", paragraph("bsconv train makes runs."))
        epoch, runs = values["epoch"], self.found[values["runs"]]
        there = [standing(name, summary, epoch) for name, summary in runs.items()]
        reached = ", ".join(f"{s.variant} {s.top1:.2f} %" for s in there)
        summary = (
            f"{values['runs']}: after epoch {epoch} of {_last_epoch(runs)}, "
            f"test top-1 is {reached}."
        )
        header = ("network", "runs", "training loss", "test top-1 (%)", "range", "learning rate")
        rows = [
            (
                s.variant,
                s.runs,
                f"{s.train_loss:.3f}",
                f"{s.top1:.2f}",
                f"{s.lowest:.2f} to {s.highest:.2f}",
                f"{s.learning_rate:.4f}",
            )
            for s in there
        ]
        return View(summary, table(header, rows), lambda: _curves(runs, epoch))


def _last_epoch(runs: dict[str, Summary]) -> int:
    return next(iter(runs.values())).config.epochs


def _curves(runs: dict[str, Summary], epoch: int) -> plotting.Figure:
    """Up to ``epoch``, on the axes of the whole run, so that nothing jumps while it moves."""
    measured = {"training loss": "train_loss", "test top-1": "test_top1"}
    panels = {
        title: {
            name: [[getattr(m, what) for m in run.epochs[:epoch]] for run in one.runs]
            for name, one in runs.items()
        }
        for title, what in measured.items()
    }
    figure = plotting.curve_panels(
        panels, xlabel="epoch", ylabels=("loss, with penalty", "accuracy (%)")
    )
    every = [m for one in runs.values() for run in one.runs for m in run.epochs]
    for axis, what in zip(figure.axes, measured.values(), strict=True):
        numbers = [getattr(m, what) for m in every]
        room = 0.05 * (max(numbers) - min(numbers)) or 1
        axis.set_xlim(0.5, _last_epoch(runs) + 0.5)
        axis.set_ylim(min(numbers) - room, max(numbers) + room)
    return figure


def training_scrubber(records: Sequence[Record] | None = None) -> Panel:
    """Controls "runs" and "epoch": recorded runs up to that epoch, as curves and as a table.

    ``records`` are those of the project, unless given; where there are none, the panel says so.
    """
    found = comparisons(load_records() if records is None else records)
    return Panel(_Scrubber(found))
