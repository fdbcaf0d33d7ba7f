"""Recorded runs beside the published numbers, as a table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bsconv.pytorch._tools.tables import Row, text_table, write_csv

from ._summary import Summary
from .published import PUBLISHED_EPOCHS, SOURCE, VARIANTS, PublishedResult, published_results

HEADER = (
    *("network", "data", "parameters", "recipe", "epochs", "runs", "mean", "range"),
    *(f"published, {PUBLISHED_EPOCHS} epochs", "difference"),
)
HEADER_APART = ("network", "data", "parameters", "recipe", "training", "runs", "mean", "range")
CSV = (
    *("network", "dataset", "parameters", "recipe", "epochs", "own_settings", "precision", "runs"),
    *("mean", "lowest", "highest", "published_top1", "published_epochs", "difference"),
)


def published_beside(summary: Summary) -> PublishedResult | None:
    """What is published of the network, unless the runs have settings of their own."""
    found = published_results().get((summary.config.dataset, summary.architecture))
    if found is None or summary.own_settings:
        return None
    same = f"{summary.parameters / 1e6:.2f}" == f"{found.million_parameters:.2f}"
    return found if same else None


@dataclass(frozen=True)
class ResultsTable:
    """Mean and range of recorded runs beside what is published; ``str`` gives it as text.

    Runs with settings of their own, such as fewer images or trained weights to start from, stand
    apart, beside no published number.
    """

    summaries: Sequence[Summary]

    @property
    def beside(self) -> list[Summary]:
        return _sorted(one for one in self.summaries if not one.own_settings)

    @property
    def apart(self) -> list[Summary]:
        return _sorted(one for one in self.summaries if one.own_settings)

    @property
    def source(self) -> str:
        """One line: what the numbers are."""
        return (
            f"{_count(self.summaries)}; top-1 in % on the whole test set after the last epoch; "
            f"published: {SOURCE}"
        )

    @property
    def apart_title(self) -> str:
        return f"{_count(self.apart)} with settings of their own, beside no published number:"

    def __str__(self) -> str:
        return "\n\n".join((*self._tables(text_table), self.source))

    def markdown(self) -> str:
        """The same for a README."""
        return "\n\n".join(self._tables(_markdown))

    def _tables(self, table: Callable[[Sequence[str], Sequence[Row]], str]) -> list[str]:
        parts = []
        if self.beside:
            parts.append(table(HEADER, [_row(one) for one in self.beside]))
        if self.apart:
            apart = table(HEADER_APART, [_row_apart(one) for one in self.apart])
            parts.append(f"{self.apart_title}\n\n{apart}")
        return parts

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """A line for each summary; OSError with one line if it cannot be written."""
        write_csv(path, CSV, (_csv_row(one) for one in (*self.beside, *self.apart)))


def _count(summaries: Sequence[Summary]) -> str:
    runs = sum(len(one.runs) for one in summaries)
    return "1 run" if runs == 1 else f"{runs} runs"


def _sorted(summaries: Iterable[Summary]) -> list[Summary]:
    """By data set and family; within one, what may be compared together, the longest first."""
    return sorted(
        summaries,
        key=lambda one: (
            *(one.config.dataset, one.family, one.recipe, -one.config.epochs),
            *(VARIANTS.index(one.variant), one.network, one.own_settings),
        ),
    )


def _range(summary: Summary) -> str:
    one = len(summary.runs) == 1
    return "one run" if one else f"{summary.lowest:.2f} to {summary.highest:.2f}"


def _row(summary: Summary) -> Row:
    config, found = summary.config, published_beside(summary)
    return (
        *(summary.network, config.dataset, summary.parameters, summary.recipe, config.epochs),
        *(len(summary.runs), f"{summary.mean:.2f}", _range(summary)),
        f"{found.top1:.2f}" if found else "",
        f"{summary.mean - found.top1:+6.2f}" if found else "",
    )


def _row_apart(summary: Summary) -> Row:
    return (
        *(summary.network, summary.config.dataset, summary.parameters, summary.recipe),
        *(summary.schedule, len(summary.runs), f"{summary.mean:.2f}", _range(summary)),
    )


def _csv_row(summary: Summary) -> Sequence[object]:
    config, found = summary.config, published_beside(summary)
    return (
        *(summary.network, config.dataset, summary.parameters, summary.recipe, config.epochs),
        *("; ".join(summary.own_settings), summary.precision, len(summary.runs)),
        *(f"{value:.4f}" for value in (summary.mean, summary.lowest, summary.highest)),
        f"{found.top1:.2f}" if found else "",
        PUBLISHED_EPOCHS if found else "",
        f"{summary.mean - found.top1:.4f}" if found else "",
    )


def _markdown(header: Sequence[str], rows: Sequence[Row]) -> str:
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell.strip() for cell in r] for r in rows]
    lines = [header, ["---"] * len(header), *([f"`{name}`", *rest] for name, *rest in cells)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
