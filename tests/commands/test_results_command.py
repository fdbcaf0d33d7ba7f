"""bsconv results: runs that may be compared with published numbers, and the rest apart."""

import csv
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from bsconv.experiments import results
from bsconv.experiments.config import TrainConfig
from bsconv.experiments.runs_table import RunsTable
from bsconv.experiments.training import History
from bsconv.pytorch import get_model, list_models
from bsconv.pytorch._tools.model_tree import parameter_count
from helpers.records import record
from results.record import write_record

WRN = "cifar_wrn16_1"
SIZES = {WRN: 175_072, "cifar_wrn16_1_bsconvu": 27_312, "cifar_resnet20": 272_480}


def of(top1: float, model: str = WRN, **settings: Any) -> results.Record:
    """Of a run of two epochs of a network of the published size."""
    settings = {"parameters": SIZES.get(model.lower(), 46_480)} | settings
    return record(*[top1] * settings.pop("epochs", 2), model=model, **settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Records of WRN-16-1 and its BSConv-U, of a network not published, and one on few images."""
    for one in (
        of(90.0), of(91.0, seed=1), of(92.0, seed=2), of(88.0, "cifar_wrn16_1_bsconvu"),
        of(60.0, "cifar_resnet20"), of(40.0, train_limit=1000), of(70.0, dataset="cifar100"),
    ):  # fmt: skip
        write_record(one, tmp_path / "results")
    return tmp_path / "results"


def rows(text: str) -> list[list[str]]:
    """The cells of a markdown table, or of several."""
    return [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]


def test_means_and_ranges_are_next_to_what_is_published(folder: Path, said: Any) -> None:
    line = ("results", "--results", folder, "--markdown")
    resnet, dense, u, other_data, limited = rows(said(*line).out)
    wrn = [WRN, "cifar10", "175,072", "fast", "2", "3", "91.00", "90.00 to 92.00"]
    assert dense == [*wrn, "91.11", "-0.11"]
    assert u[0] == "cifar_wrn16_1_bsconvu"
    assert u[5:] == ["1", "88.00", "one run", "89.09", "-1.09"]
    assert resnet[6:] == ["60.00", "one run", "", ""]  # its tables are of CIFAR-100 alone
    assert other_data[1] == "cifar100"
    assert limited[4:] == ["2 epochs, 1,000 images", "1", "40.00", "one run"]
    assert rows(said(*line, "--dataset", "cifar100").out) == [other_data]


def test_the_table_as_text_as_csv_and_the_figure(folder: Path, tmp_path: Path, said: Any) -> None:
    path, figure = tmp_path / "table.csv", tmp_path / "accuracy.svg"
    printed = said("results", "--results", folder, "--csv", path, "--out", figure).out
    assert "\n1 run with settings of their own, which have no published number:\n" in printed
    last = printed.splitlines()[-1]
    assert last.startswith("7 runs; top-1 in % on the whole test set after the last epoch;")
    assert "arXiv 2003.13549" in last
    assert "<svg" in figure.read_text()
    with path.open(newline="") as file:
        written = {(row["network"], row["dataset"]): row for row in csv.DictReader(file)}
    u = written["cifar_wrn16_1_bsconvu", "cifar10"]
    assert (u["published_top1"], u["published_epochs"], u["own_settings"]) == ("89.09", "200", "")
    assert float(u["difference"]) == pytest.approx(-1.09)
    assert written["cifar_resnet20", "cifar10"]["published_epochs"] == ""


def test_the_figure_pairs_no_two_networks_that_differ(folder: Path) -> None:
    other_share = of(80.0, "cifar_wrn16_1_bsconvs_p1d2")
    table = results.ResultsTable(results.summarize([*results.load_records(folder), other_share]))
    lines = {data: {one.label: one for one in some} for data, some in table.panels.items()}
    assert list(lines["CIFAR-10"]) == ["resnet20\n2 epochs", "wrn16_1\n2 epochs"]
    line = lines["CIFAR-10"]["wrn16_1\n2 epochs"]
    assert line.recorded["dense"] == (0.175072, [90.0, 91.0, 92.0])
    assert line.published["dense"] == (0.175072, 91.11)
    assert line.published["BSConv-U"] == (0.027312, 89.09)
    assert "BSConv-S" in line.recorded
    assert "BSConv-S" not in line.published  # which is of p = 1/4
    assert lines["CIFAR-10"]["resnet20\n2 epochs"].published == {}


def test_own_runs_stand_with_what_is_published_of_their_kind() -> None:
    table = RunsTable.__new__(RunsTable)
    history, model = History(of(50.0).epochs), get_model(WRN, 10)
    table.runs = [Mock(path="x", config=TrainConfig(WRN), model=model, history=history)]
    points = [tuple(line.get_xydata()[-1]) for line in table.figure().axes[1].lines]
    assert (0.18, 91.11) in points
    assert points[-1] == (parameter_count(model) / 1e6, 50.0)


# --- what is comparable ---------------------------------------------------------------------------


PLAIN: list[dict[str, Any]] = [
    {},
    {"epochs": 3, "seed": 5, "device": "cuda", "precision": "bfloat16", "compile": True},
    {"model": "CIFAR_WRN16_1"},
    {"model": "cifar_wrn16_1_bsconvu"},
    {"optimizer": "sgd"},  # as the recipe was before
    {"config": TrainConfig(WRN, recipe="published", epochs=2)},
]
OTHERS: dict[str, Any] = {
    "train_limit": 50, "test_limit": 50, "weights": "a.safetensors", "init": "matched",
    "learning_rate": 0.01, "weight_decay": 0.0, "batch_size": 64, "alpha": 0.0, "cutout": 8,
    "flip": False, "crop_padding": 2, "image_size": 16, "dataset": "flowers",
    "model": "cifar_wrn16_1_bsconvs_p1d2",  # not one of the published shares
    "parameters": 1000,  # a network of another size
}  # fmt: skip


@pytest.mark.parametrize("settings", [*PLAIN, *({name: OTHERS[name]} for name in OTHERS)])
def test_a_plain_run_is_compared_and_no_other(settings: dict[str, Any]) -> None:
    [row] = rows(results.ResultsTable(results.summarize([of(1.0, **settings)])).markdown())
    assert (len(row) == 10 and row[8] != "") == (settings in PLAIN)


@pytest.mark.parametrize(
    ("settings", "architecture"),
    [
        ({"bsconv": "u"}, "cifar_wrn16_1_bsconvu"),
        ({"bsconv": "s", "p": 0.25, "with_bn": True}, "cifar_wrn16_1_bsconvs_p1d4"),
        ({"bsconv": "s", "p": 0.25}, "cifar_wrn16_1 as BSConv-S, p = 1/4"),
        ({"bsconv": "u", "with_bn": True}, "cifar_wrn16_1 as BSConv-U, with BatchNorm"),
        # its variant is built otherwise
        ({"bsconv": "u", "model": "cifar_mobilenetv1_w1"}, "cifar_mobilenetv1_w1 as BSConv-U"),
    ],
)
def test_replaced_networks_have_a_name_where_that_builds_the_same(settings, architecture) -> None:
    [summary] = results.summarize([of(1.0, **settings)])
    assert summary.architecture == architecture
    assert summary.variant == f"BSConv-{settings['bsconv'].upper()}"


def test_code_of_the_users_is_in_the_table_and_not_drawn_as_a_variant() -> None:
    table = results.ResultsTable(results.summarize([of(1.0, model="nets:cp"), of(2.0)]))
    assert [one.variant for one in table.summaries] == ["dense", "nets:cp"]
    assert [line.label for line in table.panels["CIFAR-10"]] == ["wrn16_1\n2 epochs"]


# --- the published numbers ------------------------------------------------------------------------


def test_the_published_tables() -> None:
    found = results.published_results()
    assert len(found) == 211
    assert {data for data, _ in found} == {"cifar10", "cifar100"}
    assert {name for _, name in found} <= set(list_models())
    assert all(0 < row.top1 < 100 for row in found.values())
    wrn = results.published_variants("cifar_wrn16_1", "cifar10")
    found = {name: row.top1 for name, row in wrn.items()}
    assert found == {"dense": 91.11, "BSConv-U": 89.09, "BSConv-S": 87.34}
    assert results.published_variants("cifar_wrn16_1", "flowers") == {}
