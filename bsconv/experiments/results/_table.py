"""Recorded runs compared with the published numbers, as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from ...basics.tables import CsvTable, Row, text_table
from ...pytorch import get_model
from ...pytorch._tools.model_tree import parameter_count
from . import published
from ._summary import Summary, counted, variants_of

if TYPE_CHECKING:
    from ..plotting import AccuracyLine, Figure

Cells = dict[str, str | int]  # of a row, by their columns


class ResultsTable(CsvTable):
    """Mean and range of recorded runs, and what is published; ``str`` gives it as text.

    Runs with settings of their own, such as fewer images or trained weights to start from, stand
    ``apart``, in a table of their own, without published numbers.
    """

    def __init__(self, summaries: Iterable[Summary]) -> None:
        self.summaries = sorted(summaries, key=_order)
        self.comparable = [one for one in self.summaries if not one.own_settings]
        self.apart = [one for one in self.summaries if one.own_settings]

    def __str__(self) -> str:
        after = "top-1 in % on the whole test set after the last epoch"
        source = f"{_runs(self.summaries)}; {after}; published: {published.SOURCE}"
        return "\n\n".join([*self._tables(text_table), source])

    def markdown(self) -> str:
        """The same for a README."""
        return "\n\n".join(self._tables(_markdown))

    def _tables(self, table: Callable[[Sequence[str], Sequence[Row]], str]) -> list[str]:
        parts, why = [], "with settings of their own, which have no published number"
        title = f"{_runs(self.apart)} {why}:\n\n"
        for heading, summaries in (("", self.comparable), (title, self.apart)):
            rows = [_cells(one) for one in summaries]
            if rows:
                parts.append(heading + table(list(rows[0]), [tuple(row.values()) for row in rows]))
        return parts

    def _csv_rows(self) -> tuple[Sequence[str], Sequence[Row]]:
        lines = [_csv_line(one) for one in self.comparable + self.apart]
        return list(lines[0]), [list(line.values()) for line in lines]

    @cached_property
    def panels(self) -> dict[str, list[AccuracyLine]]:
        """For each data set its networks, with all variants that may be compared."""
        from ..plotting import AccuracyLine

        panels: dict[str, list[AccuracyLine]] = {}
        runs = self.comparable
        for dataset, family in dict.fromkeys((one.config.dataset, one.family) for one in runs):
            recorded, theirs = variants_of(family, runs, dataset), {}
            if not recorded:
                continue
            for name, row in published.published_variants(family, dataset).items():
                if name not in recorded or recorded[name].architecture == row.architecture:
                    theirs[name] = _parameters(row) / 1e6, row.top1
            epochs = counted(next(iter(recorded.values())).config.epochs, "epoch")
            label = f"{family.removeprefix('cifar_')}\n{epochs}"
            means = {name: (one.parameters / 1e6, one.top1) for name, one in recorded.items()}
            line = AccuracyLine(label, means, theirs)
            panels.setdefault(dataset.replace("cifar", "CIFAR-"), []).append(line)
        return panels

    def figure(self) -> Figure:
        """Accuracy against parameters, recorded and published."""
        from .. import plotting

        hollow = f"published, {published.PUBLISHED_EPOCHS} epochs"
        title = "Accuracy against size: recorded runs and published numbers"
        return plotting.accuracy_and_published(self.panels, published=hollow, title=title)


def _parameters(row: published.PublishedResult) -> int:
    """Exactly: two decimals of a million, as published, are coarse for small networks."""
    with torch.device("meta"):
        return parameter_count(get_model(row.architecture, int(row.dataset.removeprefix("cifar"))))


def _runs(summaries: Iterable[Summary]) -> str:
    return counted(sum(len(one.runs) for one in summaries), "run")


def _order(one: Summary) -> tuple[object, ...]:
    """By data set and family; within one, what may be compared together, the longest first."""
    comparable = one.config.dataset, one.family, one.recipe, -one.config.epochs
    kind = (*published.VARIANTS, one.variant).index(one.variant)
    return *comparable, kind, one.config.network, one.own_settings


def _published(summary: Summary) -> published.PublishedResult | None:
    """What is published of the network, unless the runs have settings of their own."""
    found = published.published_results().get((summary.config.dataset, summary.architecture))
    size = f"{summary.parameters / 1e6:.2f}"
    same = found and not summary.own_settings and size == f"{found.million_parameters:.2f}"
    return found if same else None


def _cells(summary: Summary) -> Cells:
    config, found, several = summary.config, _published(summary), len(summary.runs) > 1
    own = bool(summary.own_settings)
    cells: Cells = {
        "network": summary.config.network,
        "data": config.dataset,
        "parameters": summary.parameters,
        "recipe": summary.recipe,
        **({"training": summary.schedule} if own else {"epochs": config.epochs}),
        "runs": len(summary.runs),
        "mean": f"{summary.mean:.2f}",
        "range": f"{summary.lowest:.2f} to {summary.highest:.2f}" if several else "one run",
    }
    if not own:
        theirs = f"{found.top1:.2f}" if found else ""
        cells[f"published, {published.PUBLISHED_EPOCHS} epochs"] = theirs
        cells["difference"] = f"{summary.mean - found.top1:+6.2f}" if found else ""
    return cells


def _csv_line(summary: Summary) -> Cells:
    found = _published(summary)
    return {
        "network": summary.config.network,
        "dataset": summary.config.dataset,
        "parameters": summary.parameters,
        "recipe": summary.recipe,
        "epochs": summary.config.epochs,
        "own_settings": "; ".join(summary.own_settings),
        "precision": summary.precision,
        "runs": len(summary.runs),
        "mean": f"{summary.mean:.4f}",
        "lowest": f"{summary.lowest:.4f}",
        "highest": f"{summary.highest:.4f}",
        "published_top1": f"{found.top1:.2f}" if found else "",
        "published_epochs": published.PUBLISHED_EPOCHS if found else "",
        "difference": f"{summary.mean - found.top1:.4f}" if found else "",
    }


def _markdown(header: Sequence[str], rows: Sequence[Row]) -> str:
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell.strip() for cell in r] for r in rows]
    lines = [header, ["---"] * len(header)] + [[f"`{name}`", *rest] for name, *rest in cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
