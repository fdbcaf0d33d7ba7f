"""bsconv results: runs that may be compared with published numbers, and the rest apart."""

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bsconv.__main__ import main
from bsconv.commands.results import _panels
from bsconv.experiments.config import TrainConfig
from bsconv.experiments.results import (
    Record,
    ResultsTable,
    load_records,
    published_results,
    published_variants,
    summarize,
    write_record,
)
from bsconv.experiments.training import EpochMetrics
from bsconv.pytorch import list_models

Captured = pytest.CaptureFixture[str]
Failure = Callable[..., str]
SIZES = {"cifar_wrn16_1": 175_072, "cifar_wrn16_1_bsconvu": 27_312, "cifar_resnet20": 272_480}


def record(top1: float, **settings: Any) -> Record:
    given = {"model": "cifar_wrn16_1", "recipe": "fast", "epochs": 2, "device": "cpu"} | settings
    config = TrainConfig(**given).resolved()
    return Record(
        config=config,
        parameters=SIZES.get(config.model, 46_480),
        epochs=tuple(EpochMetrics(n, 1.0, top1, 0.1, 1.5) for n in range(1, config.epochs + 1)),
        machine="2 CPU cores",
        versions={},
        date="2026-01-31",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Records of WRN-16-1 and its BSConv-U, of a network not published, and one on few images."""
    for one in (
        record(90.0, seed=0),
        record(91.0, seed=1),
        record(92.0, seed=2),
        record(88.0, model="cifar_wrn16_1_bsconvu"),
        record(60.0, model="cifar_resnet20"),
        record(40.0, train_limit=1000),
        record(70.0, dataset="cifar100"),
    ):
        write_record(one, tmp_path / "results")
    return tmp_path / "results"


def rows(text: str) -> list[list[str]]:
    """The cells of a markdown table, or of several."""
    return [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]


def test_means_and_ranges_are_next_to_what_is_published(folder: Path, capsys: Captured) -> None:
    assert main(["results", "--results", str(folder), "--markdown"]) == 0
    resnet, dense, u, other_data, limited = rows(capsys.readouterr().out)
    wrn = ["cifar_wrn16_1", "cifar10", "175,072", "fast", "2", "3", "91.00", "90.00 to 92.00"]
    assert dense == [*wrn, "91.11", "-0.11"]
    assert u[0] == "cifar_wrn16_1_bsconvu"
    assert u[5:] == ["1", "88.00", "one run", "89.09", "-1.09"]
    assert resnet[6:] == ["60.00", "one run", "", ""]  # its tables are of CIFAR-100 alone
    assert other_data[1] == "cifar100"
    assert limited[4:] == ["2 epochs, 1,000 images", "1", "40.00", "one run"]
    assert main(["results", "--results", str(folder), "--dataset", "cifar100", "--markdown"]) == 0
    assert rows(capsys.readouterr().out) == [other_data]


def test_the_text_names_the_source_and_how_many_are_apart(folder: Path, capsys: Captured) -> None:
    assert main(["results", "--results", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "published, 200 epochs" in printed
    assert "\n1 run with settings of their own, which have no published number:\n" in printed
    last = printed.splitlines()[-1]
    assert last.startswith("7 runs; top-1 in % on the whole test set after the last epoch;")
    assert "arXiv 2003.13549" in last


def test_the_table_as_csv_and_the_figure(folder: Path, tmp_path: Path) -> None:
    path, figure = tmp_path / "table.csv", tmp_path / "accuracy.svg"
    files = ["--csv", str(path), "--out", str(figure)]
    assert main(["results", "--results", str(folder), *files]) == 0
    assert b"<svg" in figure.read_bytes()
    with path.open(newline="") as file:
        written = {
            (row["network"], row["dataset"], row["epochs"]): row for row in csv.DictReader(file)
        }
    u = written["cifar_wrn16_1_bsconvu", "cifar10", "2"]
    assert float(u["published_top1"]) == 89.09
    assert float(u["difference"]) == pytest.approx(-1.09)
    assert (u["published_epochs"], u["own_settings"]) == ("200", "")
    assert written["cifar_resnet20", "cifar10", "2"]["published_epochs"] == ""


def test_the_figure_pairs_no_two_networks_that_differ(folder: Path) -> None:
    other_share = record(80.0, model="cifar_wrn16_1_bsconvs_p1d2")
    table = ResultsTable(summarize([*load_records(folder), other_share]))
    lines = {data: {one.label: one for one in some} for data, some in _panels(table).items()}
    assert list(lines["CIFAR-10"]) == ["resnet20\n2 epochs", "wrn16_1\n2 epochs"]
    line = lines["CIFAR-10"]["wrn16_1\n2 epochs"]
    assert line.recorded["dense"] == (0.175072, [90.0, 91.0, 92.0])
    assert line.published["dense"] == (0.175072, 91.11)
    assert line.published["BSConv-U"] == (0.027312, 89.09)
    assert "BSConv-S" in line.recorded
    assert "BSConv-S" not in line.published  # which is of p = 1/4
    assert lines["CIFAR-10"]["resnet20\n2 epochs"].published == {}


# --- wrong inputs ---------------------------------------------------------------------------------

WRONG = [
    ([], "results does not exist; --results DIR names another"),
    (["--results", "nowhere"], "nowhere does not exist; --results DIR names another"),
    (["--results", "a.json"], "folder of records a.json does not exist; --results DIR"),
    (["--results", "empty"], "there is no record of a run in empty; --results DIR"),
    (["--results", "broken"], "bad.json holds no record of a run"),
    (["--dataset", "mnist"], "--dataset mnist has no recorded run, cifar10, cifar1"),
    (["--out", "fig.txt"], "a figure's name needs to end in .png, .pdf, .svg, got"),
    (["--out", "none/fig.png"], "cannot write"),
    (["--csv", "none/a.csv"], "cannot write none/a.csv"),
    (["--results", "apart", "--out", "f.png"], "nothing to draw in f.png: 1 run with"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_wrong_input_is_one_line(
    given: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, failure: Failure
) -> None:
    monkeypatch.chdir(folder if not given else folder.parent)
    for name in ("empty", "broken"):
        Path(name).mkdir()
    Path("broken/bad.json").write_text("{}")
    Path("a.json").write_text("{}")
    write_record(record(1.0, train_limit=5), "apart")
    assert message in failure("results", *given)


# --- what is comparable ---------------------------------------------------------------------------


def compared(one: Record) -> bool:
    [row] = rows(ResultsTable(summarize([one])).markdown())
    return len(row) == 10 and row[8] != ""


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"epochs": 3, "seed": 5, "device": "cuda", "precision": "bfloat16", "compile": True},
        {"recipe": "published"},
        {"model": "CIFAR_WRN16_1"},
        {"model": "cifar_wrn16_1_bsconvu"},
        {"optimizer": "sgd"},  # as the recipe was before
    ],
)
def test_a_plain_run_is_compared(settings: dict[str, Any]) -> None:
    assert compared(dataclasses.replace(record(1.0, **settings), parameters=size(settings)))


def size(settings: dict[str, Any]) -> int:
    return SIZES[settings.get("model", "cifar_wrn16_1").lower()]


@pytest.mark.parametrize(
    "settings",
    [
        {"train_limit": 50},
        {"test_limit": 50},
        {"weights": "a.safetensors"},
        {"init": "matched"},
        {"learning_rate": 0.01},
        {"weight_decay": 0.0},
        {"batch_size": 64},
        {"alpha": 0.0},
        {"cutout": 8},
        {"flip": False},
        {"crop_padding": 2},
        {"image_size": 16},
        {"model": "torchvision:resnet18"},
        {"model": "cifar_wrn16_1_bsconvs_p1d2"},  # not one of the published shares
        {"dataset": "flowers"},
    ],
)
def test_anything_else_is_not(settings: dict[str, Any]) -> None:
    assert not compared(record(1.0, **settings))


def test_a_network_of_another_size_is_not_the_published_one() -> None:
    assert not compared(dataclasses.replace(record(1.0), parameters=1000))


@pytest.mark.parametrize(
    ("settings", "architecture"),
    [
        ({"bsconv": "u"}, "cifar_wrn16_1_bsconvu"),
        ({"bsconv": "s", "p": 0.25, "with_bn": True}, "cifar_wrn16_1_bsconvs_p1d4"),
        ({"bsconv": "s", "p": 0.25}, "cifar_wrn16_1 as BSConv-S, p = 1/4"),
        ({"bsconv": "u", "with_bn": True}, "cifar_wrn16_1 as BSConv-U, with BatchNorm"),
        (
            {"bsconv": "u", "model": "cifar_mobilenetv1_w1"},  # its variant is built otherwise
            "cifar_mobilenetv1_w1 as BSConv-U",
        ),
    ],
)
def test_replaced_networks_have_a_name_where_that_builds_the_same(
    settings: dict[str, Any], architecture: str
) -> None:
    [summary] = summarize([record(1.0, **settings)])
    assert summary.architecture == architecture
    assert summary.variant == f"BSConv-{settings['bsconv'].upper()}"


# --- the published numbers ------------------------------------------------------------------------


def test_the_published_tables() -> None:
    found = published_results()
    assert len(found) == 211
    assert {data for data, _ in found} == {"cifar10", "cifar100"}
    assert {name for _, name in found} <= set(list_models())
    assert all(0 < row.top1 < 100 for row in found.values())
    wrn = published_variants("cifar_wrn16_1", "cifar10")
    assert {name: row.top1 for name, row in wrn.items()} == {
        "dense": 91.11,
        "BSConv-U": 89.09,
        "BSConv-S": 87.34,
    }
    assert published_variants("cifar_wrn16_1", "flowers") == {}
