"""Compare the recorded runs with the published numbers, in a table and in a figure.

Runs of one network, data set, recipe and length are summed up over their seeds. Lengths differ:
mind the epochs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ._output import ROWS, add_csv, add_figure, add_json, check_files, print_table

if TYPE_CHECKING:
    from ..experiments.plotting import AccuracyLine, Figure
    from ..experiments.results import ResultsTable

HELP = "compare the recorded runs with the published numbers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "the folder of records (default: results of this project)"
    add("--results", metavar="DIR", help=text)
    text = "your own runs instead, the --out of `bsconv train`: a table, and their curves"
    add("--runs", nargs="+", metavar="DIR", help=text)
    add("--dataset", metavar="NAME", help="only runs on this data set")
    add("--markdown", action="store_true", help="print the table as the README has it")
    add_csv(parser)
    add_json(parser, ROWS)
    add_figure(parser, "accuracy against parameters, recorded and published")


def run(arguments: argparse.Namespace) -> int:
    check_files(arguments.out, arguments.csv)
    if arguments.runs is not None:
        for option in ("results", "dataset", "markdown"):
            if getattr(arguments, option):
                raise ValueError(f"--{option} goes with the recorded runs, not with --runs")

        from ..experiments.runs_table import RunsTable

        runs = RunsTable(arguments.runs)
        print_table(arguments, runs, runs.figure)
        return 0
    table = _recorded(arguments.results, arguments.dataset)
    draw = None if arguments.out is None else _drawing(table, arguments.out)
    text = table.markdown() if arguments.markdown else None
    print_table(arguments, table, draw, text=text)
    return 0


def _recorded(folder: str | None, dataset: str | None) -> ResultsTable:
    from ..experiments import results

    folder = folder or str(results.results_folder())
    try:
        summaries = results.summarize(results.load_records(folder))
    except FileNotFoundError as error:
        raise ValueError(f"{error}; --results DIR names another") from error
    if not summaries:
        raise ValueError(f"there is no record of a run in {folder}; --results DIR names another")
    if dataset is not None:
        known = ", ".join(sorted({one.config.dataset for one in summaries}))
        summaries = [one for one in summaries if one.config.dataset == dataset]
        if not summaries:
            raise ValueError(f"--dataset {dataset} has no recorded run, {known} has")
    return results.ResultsTable(summaries)


def _drawing(table: ResultsTable, path: str) -> Callable[[], Figure]:
    """What draws the figure for ``path``; ValueError where there is nothing to draw."""
    from ..experiments import plotting
    from ..experiments.results import PUBLISHED_EPOCHS

    panels = _panels(table)
    if not panels:
        raise ValueError(f"there is nothing to draw in {path}: {table.apart_title}")
    published = f"published, {PUBLISHED_EPOCHS} epochs"
    title = "Accuracy against size: recorded runs and published numbers"
    return partial(plotting.accuracy_and_published, panels, published=published, title=title)


def _panels(table: ResultsTable) -> dict[str, list[AccuracyLine]]:
    """For each data set its networks, with all variants that may be compared."""
    from ..experiments import plotting
    from ..experiments.results import published_variants, variants_of

    panels: dict[str, list[plotting.AccuracyLine]] = {}
    runs = table.comparable
    for dataset, family in dict.fromkeys((one.config.dataset, one.family) for one in runs):
        recorded = variants_of(family, runs, dataset)
        if not recorded:
            continue
        (epochs,) = {one.config.epochs for one in recorded.values()}
        line = plotting.AccuracyLine(
            f"{family.removeprefix('cifar_')}\n{epochs} epoch{'s' if epochs > 1 else ''}",
            {name: (one.parameters / 1e6, one.top1) for name, one in recorded.items()},
            {
                name: (_parameters(row.architecture, dataset) / 1e6, row.top1)
                for name, row in published_variants(family, dataset).items()
                if name not in recorded or recorded[name].architecture == row.architecture
            },
        )
        panels.setdefault(dataset.replace("cifar", "CIFAR-"), []).append(line)
    return panels


def _parameters(architecture: str, dataset: str) -> int:
    """Exactly: two decimals of a million, as published, are coarse for small networks."""
    import torch

    from ..pytorch import get_model
    from ..pytorch._tools.model_tree import parameter_count

    with torch.device("meta"):
        return parameter_count(get_model(architecture, int(dataset.removeprefix("cifar"))))
