"""Recorded runs up to an epoch: curves, and the numbers they have reached there."""

from collections.abc import Sequence
from statistics import mean

from ...experiments import plotting
from ...experiments.results import Record, Summary, by_variant, load_records, summarize
from ._panel import Panel, View, choice, limit, paragraph, slider, table

Runs = dict[str, Summary]
_MEASURED = {"training loss": "train_loss", "test top-1": "test_top1"}


def training_scrubber(records: Sequence[Record] | None = None) -> Panel:
    """Controls "runs" and "epoch": recorded runs up to that epoch, as curves and as a table.

    ``records`` are those of the project, unless given; where there are none, the panel says so.
    """
    found = comparisons(load_records() if records is None else records)
    title = "training scrubber"
    if not found:
        nothing = View("no recorded runs in results/.", paragraph("bsconv train makes runs."))
        return Panel(title, {}, lambda: nothing)
    chosen = choice("recorded runs", {name: name for name in found}, next(iter(found)))
    last = _last_epoch(found[chosen.value])
    controls = {"runs": chosen, "epoch": slider("epoch", 1, last, last)}
    return Panel(
        title,
        controls,
        lambda runs, epoch: _view(runs, found[runs], epoch),
        lambda: limit(controls["epoch"], _last_epoch(found[chosen.value])),
    )


def comparisons(records: Sequence[Record]) -> dict[str, Runs]:
    """Recorded runs that share all but the variant: ``{title: {variant: runs}}``."""
    found: dict[str, list[Summary]] = {}
    for summary in summarize(records):
        title = f"{summary.family}, {summary.config.dataset}, {summary.recipe}, {summary.length}"
        found.setdefault(title, []).append(summary)
    compared = {title: by_variant(group) for title, group in found.items()}
    most_first = sorted(compared, key=lambda title: -len(compared[title]))
    return {title: compared[title] for title in most_first if compared[title]}


def _last_epoch(runs: Runs) -> int:
    return next(iter(runs.values())).config.epochs


def _view(title: str, runs: Runs, epoch: int) -> View:
    reached, rows = [], []
    for variant, summary in runs.items():
        there = [run.epochs[epoch - 1] for run in summary.runs]
        top1 = [metrics.test_top1 for metrics in there]
        spread = f"{min(top1):.2f} to {max(top1):.2f}"
        loss = f"{mean(metrics.train_loss for metrics in there):.3f}"
        rate = f"{mean(metrics.learning_rate for metrics in there):.4f}"
        reached.append(f"{variant} {mean(top1):.2f} %")
        rows.append((variant, len(there), loss, f"{mean(top1):.2f}", spread, rate))
    when = f"after epoch {epoch} of {_last_epoch(runs)}"
    said = f"{title}: {when}, test top-1 is {', '.join(reached)}."
    header = ("network", "runs", "training loss", "test top-1 (%)", "range", "learning rate")
    return View(said, table(header, rows), lambda: _curves(runs, epoch))


def _curves(runs: Runs, epoch: int) -> plotting.Figure:
    """Up to ``epoch``, on the axes of the whole run, so that nothing jumps while it moves."""
    panels = {
        title: {
            name: [[getattr(m, what) for m in run.epochs[:epoch]] for run in one.runs]
            for name, one in runs.items()
        }
        for title, what in _MEASURED.items()
    }
    labels = ("loss, with penalty", "accuracy (%)")
    figure = plotting.curve_panels(panels, xlabel="epoch", ylabels=labels)
    every = [m for one in runs.values() for run in one.runs for m in run.epochs]
    for axis, what in zip(figure.axes, _MEASURED.values(), strict=True):
        numbers = [getattr(m, what) for m in every]
        room = 0.05 * (max(numbers) - min(numbers)) or 1
        axis.set_xlim(0.5, _last_epoch(runs) + 0.5)
        axis.set_ylim(min(numbers) - room, max(numbers) + room)
    return figure
