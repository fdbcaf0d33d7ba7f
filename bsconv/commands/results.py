"""Compare the recorded runs with the published numbers, in a table and in a figure.

Runs of one network, data set, recipe and length are summed up over their seeds. Lengths differ:
mind the epochs.
"""

import argparse

from ._arguments import only_with
from ._output import ROWS, add_csv, add_figure, add_json, check_files, print_table

HELP = "compare the recorded runs with the published numbers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "the folder of records (default: results of this project)"
    add("--results", metavar="DIR", help=text)
    text = "your own runs instead, the --out of `bsconv train`: a table and a figure"
    add("--runs", nargs="+", metavar="DIR", help=text)
    add("--dataset", metavar="NAME", help="only runs on this data set")
    instead = parser.add_mutually_exclusive_group()
    text = "print the table as the README has it"
    instead.add_argument("--markdown", action="store_true", help=text)
    add_json(instead, ROWS)
    add_csv(parser)
    add_figure(parser, "accuracy against parameters, recorded and published")


def run(arguments: argparse.Namespace) -> None:
    check_files(arguments.out, arguments.csv)
    if arguments.runs is not None:
        recorded = "the recorded runs, not with --runs"
        only_with(False, recorded, arguments, "results", "dataset", "markdown")

        from ..experiments.runs_table import RunsTable

        runs = RunsTable(arguments.runs)
        print_table(arguments, runs, runs.figure)
        return

    from ..experiments import results

    folder, dataset = arguments.results or results.results_folder(), arguments.dataset
    summaries = results.summarize(results.load_records(folder))
    if not summaries:
        ways = "--results DIR names another folder, --runs your own"
        raise ValueError(f"there is no record of a run in {folder}; {ways}")
    if dataset is not None:
        known = ", ".join(sorted({one.config.dataset for one in summaries}))
        summaries = [one for one in summaries if one.config.dataset == dataset]
        if not summaries:
            raise ValueError(f"--dataset {dataset} has no recorded run, {known} has")
    table = results.ResultsTable(summaries)
    if arguments.out is not None and not table.panels:
        rule = "no run is of a named network with its recipe's own settings"
        raise ValueError(f"there is nothing to draw in {arguments.out}: {rule}")
    text = table.markdown() if arguments.markdown else None
    print_table(arguments, table, table.figure, text=text)
