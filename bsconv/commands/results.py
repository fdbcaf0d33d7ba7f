"""Compare the recorded runs with the published numbers, in a table and in a figure.

Runs of one network, data set, recipe and length are summed up over their seeds. Lengths differ:
mind the epochs.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from ._arguments import add_csv
from ._files import add_figure, check_files, write_figure
from ._json import add_json, print_json, rows_of

if TYPE_CHECKING:
    from ..experiments.plotting import AccuracyLine
    from ..experiments.results import ResultsTable

HELP = "compare the recorded runs with the published numbers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", metavar="DIR", help="the folder of records (default: results of this project)"
    )
    parser.add_argument(
        "--runs",
        nargs="+",
        metavar="DIR",
        help="your own runs instead, the --out of `bsconv train`: a table, and their curves",
    )
    parser.add_argument("--dataset", metavar="NAME", help="only runs on this data set")
    parser.add_argument(
        "--markdown", action="store_true", help="print the table as the README has it"
    )
    add_csv(parser)
    add_json(parser, "rows with the columns of --csv")
    add_figure(parser, "accuracy against parameters, recorded and published")


def run(arguments: argparse.Namespace) -> int:
    from ..experiments import results

    check_files(figure=arguments.out, other=arguments.csv)
    if arguments.runs is not None:
        for option in ("results", "dataset", "markdown"):
            if getattr(arguments, option):
                raise ValueError(f"--{option} goes with the recorded runs, not with --runs")
        return _own_runs(arguments)
    folder = results.results_folder() if arguments.results is None else arguments.results
    try:
        summaries = results.summarize(results.load_records(folder))
    except FileNotFoundError as error:
        raise ValueError(f"{error}; --results DIR names another") from error
    if not summaries:
        raise ValueError(f"there is no record of a run in {folder}; --results DIR names another")
    if arguments.dataset is not None:
        known = ", ".join(sorted({one.config.dataset for one in summaries}))
        summaries = [one for one in summaries if one.config.dataset == arguments.dataset]
        if not summaries:
            raise ValueError(f"--dataset {arguments.dataset} has no recorded run, {known} has")
    table = results.ResultsTable(summaries)
    if arguments.out is not None:
        from ..experiments import plotting

        panels = _panels(table)
        if not panels:
            raise ValueError(f"there is nothing to draw in {arguments.out}: {table.apart_title}")
        published = f"published, {results.PUBLISHED_EPOCHS} epochs"
        title = "Accuracy against size: recorded runs and published numbers"
        draw = partial(plotting.accuracy_and_published, panels, published=published, title=title)
        write_figure(arguments.out, draw)
    if arguments.csv is not None:
        table.to_csv(arguments.csv)
    if arguments.json:
        print_json(rows=rows_of(table))
    else:
        print(table.markdown() if arguments.markdown else table)
    return 0


def _own_runs(arguments: argparse.Namespace) -> int:
    from ..experiments import plotting
    from ..experiments.runs_table import RunsTable

    table = RunsTable(arguments.runs)
    if arguments.out is not None:
        epochs, top1 = table.curves
        write_figure(
            arguments.out,
            lambda: plotting.curves(epochs, top1, xlabel="epoch", ylabel="test top-1 in %"),
        )
    if arguments.csv is not None:
        table.to_csv(arguments.csv)
    if arguments.json:
        print_json(rows=rows_of(table))
    else:
        print(table)
    return 0


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
