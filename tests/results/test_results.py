"""Records say what a run folder says, survive writing and reading, and are refused when broken."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bsconv.experiments import results
from bsconv.experiments.training import TrainConfig, train
from bsconv.pytorch import get_model
from helpers.paths import ROOT
from helpers.records import epochs, record
from results.record import main, make_record, name_of, text_of, write_record


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of two epochs on a few images."""
    out = tmp_path_factory.mktemp("runs") / "a"
    settings: Any = {"epochs": 2, "recipe": "fast", "device": "cpu", "seed": 7, "image_size": 8}
    settings |= {"train_limit": 16, "test_limit": 8, "out": str(out)}
    train(TrainConfig("cifar_resnet20_bsconvs_p1d4", "synthetic", **settings), progress=False)
    return out


# --- from a run folder ----------------------------------------------------------------------------


def test_a_record_holds_what_the_run_measured(finished: Path) -> None:
    os.utime(finished / "model.safetensors", (1_700_000_000, 1_700_000_000))
    made = make_record(finished, machine="1 CPU core", note="a trial", commit="abc1234")
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    assert [dataclasses.asdict(metrics) for metrics in made.epochs] == [*map(json.loads, lines)]
    model = get_model("cifar_resnet20_bsconvs_p1d4", 10)
    assert made.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (made.seed, made.config.image_size, made.config.learning_rate) == (7, 8, 0.3)
    assert (made.machine, made.note, made.commit) == ("1 CPU core", "a trial", "abc1234")
    assert made.date == "2023-11-14"  # of the end of the run
    assert torch.__version__.startswith(made.versions["torch"])
    assert set(made.versions) == {"python", "torch", "torchvision", "bsconv"}


def test_no_folder_of_the_machine_gets_into_a_record(finished: Path, tmp_path: Path) -> None:
    config = json.loads((finished / "config.json").read_text())
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    secret = {name: str(tmp_path / name) for name in ("dataset", "data", "weights")}
    secret |= {name: f"{tmp_path}/{name}.py:net" for name in ("model", "teacher_model")}
    (tmp_path / "config.json").write_text(json.dumps(config | secret))
    made = make_record(tmp_path, machine="m")
    assert (made.config.dataset, made.config.weights) == ("dataset", "weights")
    assert (made.config.model, made.config.teacher_model) == ("model:net", "teacher_model:net")
    assert str(tmp_path.parent) not in text_of(made)
    assert "-model_net-" in name_of(made)
    assert "out" not in json.loads(text_of(made))["config"]


def test_an_unfinished_run_makes_no_record(finished: Path, tmp_path: Path) -> None:
    def refused(message: str, folder: Path = tmp_path) -> None:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            make_record(folder, machine="m")

    refused("nowhere does not exist", tmp_path / "nowhere")
    refused(r"config\.json")
    for name in ("config.json", "metrics.jsonl"):
        shutil.copy(finished / name, tmp_path)
    refused("is not finished: 2 of 2 epochs")
    shutil.copy(finished / "model.safetensors", tmp_path)
    first = (finished / "metrics.jsonl").read_text().splitlines(keepends=True)[0]
    for left, message in ((first, "is not finished: 1 of 2"), (f"{first}{{", "holds no epochs")):
        (tmp_path / "metrics.jsonl").write_text(left)
        refused(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"machine": " "}, "machine needs to say in words what it is, got ' '"),
        ({"parameters": 0}, "parameters needs to be a whole number >= 1, got 0"),
        ({"epochs": epochs(1, 2)}, r"epochs needs to be 1 to 3, got \[1, 2\]"),
        ({"epochs": epochs(1, 2, 101)}, "test_top1 needs to be 0 to 100 percent"),
        ({"epochs": epochs(1, 2, float("nan"))}, "test_top1 needs to be 0 to 100 percent"),
        ({"date": "yesterday"}, "Invalid isoformat string: 'yesterday'"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record(**changes)


# --- files ----------------------------------------------------------------------------------------


def test_writing_and_reading_gives_the_same_records(tmp_path: Path) -> None:
    records = [record(commit="abc1234", note="é", milestones=(1, 2), recipe="published"), record()]
    for one in records:
        write_record(one, tmp_path / "new" / "results")
    assert results.load_records(tmp_path / "new" / "results") == [records[1], records[0]]
    lines = text_of(record()).splitlines()
    assert sum('"test_top1"' in line for line in lines) == 3  # an epoch is a line


USUAL = "cifar10-cifar_resnet20_bsconvu-fast-3epochs"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, f"{USUAL}-seed0"),
        # how steps are computed has no part in it, but what tells apart runs of a seed
        ({"compile": True, "plan": "merged", "precision": "float32"}, f"{USUAL}-seed0"),
        ({"seed": 2, "device": "cuda", "precision": "bfloat16"}, f"{USUAL}-seed2-cuda-bfloat16"),
        ({"alpha": 0.0}, f"{USUAL}-alpha0.0-seed0"),
        ({"model": "torchvision:vgg11", "bsconv": "s", "p": 0.5},
         "cifar10-torchvision_vgg11-fast-3epochs-bsconvs-p0.5-seed0"),
        ({"recipe": "published", "milestones": (1, 2)},
         f"{USUAL.replace('fast', 'published')}-optimizermuon-learning_rate0.3-weight_decay0.0005-"
         "seed0"),
    ],
)  # fmt: skip
def test_the_name_tells_records_apart(changes: dict[str, Any], name: str, tmp_path: Path) -> None:
    assert write_record(record(**changes), tmp_path).name == f"{name}.json"


def test_another_record_is_never_overwritten(tmp_path: Path) -> None:
    path = write_record(record(), tmp_path)
    before = path.read_bytes()
    assert write_record(record(), tmp_path) == path
    with pytest.raises(FileExistsError, match=r"seed0\.json already holds another record"):
        write_record(record(1, 2, 3), tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda values: [values], "cannot be interpreted as an integer"),
        (lambda values: values | {"format": "2"}, "format needs to be 'bsconv record 1'"),
        (lambda values: {k: values[k] for k in values if k != "machine"}, "machine"),
        (lambda values: {k: values[k] for k in values if k != "epochs"}, "it lacks 'epochs'"),
        (lambda values: values | {"host": "x"}, "host"),
        (lambda values: values | {"config": {"epochs": -1}}, "epochs needs"),
        (lambda values: values | {"epochs": [5]}, "must be a mapping"),
    ],
)
def test_a_broken_record_is_named(break_it: Callable[[dict], Any], reason: str, tmp_path) -> None:
    path = write_record(record(), tmp_path)
    path.write_text(json.dumps(break_it(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=f"seed0.json holds no record of a run: .*{reason}"):
        results.load_records(tmp_path)
    path.write_bytes(b"{")
    with pytest.raises(ValueError, match=r"seed0\.json holds no record of a run"):
        results.load_records(tmp_path)


@pytest.mark.parametrize("here", [".", "notebooks", "course"])
def test_records_are_found_from_the_project_and_its_notebooks(here, tmp_path, monkeypatch):
    (tmp_path / here).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / here)
    assert results.results_folder() == tmp_path / "results"
    assert results.load_records() == []
    write_record(record(), tmp_path / "results")
    (tmp_path / "results" / "README.md").write_text("no record")
    assert results.load_records() == [record()]
    assert results.load_records(tmp_path / "nowhere") == []


def test_the_records_of_the_project_are_whole() -> None:
    folder = ROOT / "results"
    records = results.load_records(folder)
    for path, one in zip(sorted(folder.glob("*.json")), records, strict=True):
        config = one.config
        model = config.model.replace(":", "_")
        assert path.name.startswith(f"{config.dataset}-{model}-{config.recipe}")
        assert f"-{config.epochs}epochs-" in path.name
        assert f"-seed{config.seed}" in path.name
    assert len({text_of(one) for one in records}) == len(records)


# --- summaries ------------------------------------------------------------------------------------


def test_a_summary_pools_seeds_and_devices_and_nothing_else() -> None:
    records = [
        record(10, 50), record(10, 90, model="cifar_resnet20", parameters=270_000),
        record(90, 56, seed=1), record(10, 53, seed=2, device="cuda"), record(10, 20, alpha=0.5),
        record(10, 20, 30),
    ]  # fmt: skip
    ours, dense, *others = results.summarize(records)
    assert ours.top1 == [50, 56, 53]
    assert (ours.mean, ours.lowest, ours.highest) == (53, 50, 56)
    assert (dense.parameters, dense.runs) == (270_000, (records[1],))
    assert [one.runs for one in others] == [(records[4],), (records[5],)]
    assert str(ours) == (
        "cifar_resnet20_bsconvu on cifar10, recipe fast, 2 epochs: 53.00 % (50.00 to 56.00, 3 runs)"
    )
    assert str(dense).endswith("90.00 % (90.00 to 90.00, 1 run)")
    assert results.summarize([]) == []


def test_how_steps_were_computed_splits_no_row() -> None:
    factored = record(50, precision="float32", compile=False, plan="factored")
    left_open = record(54, seed=2)
    unresolved = dataclasses.replace(record(52), config=TrainConfig(epochs=1, recipe="fast"))
    how = {"precision": "bfloat16", "compile": True, "plan": "merged", "device": "cuda"}
    merged = record(52, seed=1, **how)
    [summary] = results.summarize([factored, merged, left_open, unresolved])
    assert summary.top1 == [50, 52, 54, 52]
    assert summary.precision == "auto and bfloat16 and float32"
    [apart] = results.summarize([record(50, weights="a/u_b.pt", train_limit=25_000, bsconv="u")])
    assert apart.schedule == "1 epoch, from u b, 25,000 images"


def test_an_old_record_is_of_the_recipe_that_it_was_trained_with() -> None:
    def written_before(**settings: Any) -> results.Record:
        """When there was one optimiser and no choice of execution."""
        values = json.loads(text_of(record(10, 50)))
        for name in ("optimizer", "precision", "plan", "compile"):
            del values["config"][name]
        del values["format"]
        sgd = {"learning_rate": 0.3, "momentum": 0.9, "weight_decay": 5e-4}
        values["config"] |= sgd | settings
        return results.Record.from_dict(values)

    old = written_before()
    assert (old.config.precision, old.config.plan) == ("float32", "factored")
    assert old.config.compile is False
    assert "-fast_SGD-2epochs-seed0" in name_of(old)
    found = results.summarize([record(10, 50), old, written_before(learning_rate=0.1)])
    assert [(one.recipe, one.own_settings) for one in found] == [
        ("fast", ()), ("fast (SGD)", ()), ("fast (SGD)", ("learning rate 0.1",))
    ]  # fmt: skip


# --- side by side ---------------------------------------------------------------------------------

NETWORK = "cifar_resnet20"


def of(variant: str, *top1: float, **settings: Any) -> results.Record:
    return record(*top1, model=NETWORK + variant, **settings)


@pytest.mark.parametrize(
    ("records", "chosen"),
    [
        ([], {}),
        ([of("", 1, 2)], {"dense": 0}),
        # variants of one length stand together, however long others are
        ([of("", 1, 2, 3), of("", 1, 2), of("_bsconvu", 1, 2)], {"dense": 1, "BSConv-U": 2}),
        # of as many variants, the longest
        ([of("_bsconvu", 1), of("", 1, 2)], {"dense": 1}),
        # and today's recipe
        ([of("", 1, optimizer="sgd"), of("", 1)], {"dense": 1}),
        # in one order
        ([of("_bsconvs_p1d4", 1), of("_bsconvu", 1), of("", 1)],
         {"dense": 2, "BSConv-U": 1, "BSConv-S": 0}),
        # of several shares, the one of equal width
        ([of("_bsconvs_p1d2", 1, parameters=42_095), of("_bsconvs_p1d4", 1, parameters=27_255)],
         {"BSConv-S": 1}),
        ([of("", 1, bsconv="u")], {"BSConv-U": 0}),
        ([of("", 1, bsconv="u", with_bn=True)], {}),  # a network without a name
        ([of("", 1, train_limit=9), of("", 1, dataset="cifar100"), of("", 1, alpha=0.0)], {}),
        ([record(1, model="cifar_resnet56")], {}),
    ],
)  # fmt: skip
def test_variants_that_may_be_compared(
    records: list[results.Record], chosen: dict[str, int]
) -> None:
    found = results.variants_of(NETWORK, results.summarize(records))
    assert list(found) == list(chosen)
    assert [one.runs for one in found.values()] == [(records[at],) for at in chosen.values()]


def test_more_runs_count_before_longer_ones() -> None:
    records = [of("", 1, seed=0), of("", 1, seed=1), of("", 1, 2)]
    assert len(results.variants_of(NETWORK, results.summarize(records))["dense"].runs) == 2


# --- command line ---------------------------------------------------------------------------------


def test_records_are_made_from_the_command_line(finished: Path, tmp_path, capsys) -> None:
    given = [str(finished), "--machine", "1 CPU core", "--note", "a trial", "--commit", "abc1234"]
    assert main([*given, "--out", str(tmp_path)]) == 0
    assert Path(capsys.readouterr().out.strip()).parent == tmp_path
    expected = make_record(finished, machine="1 CPU core", note="a trial", commit="abc1234")
    assert results.load_records(tmp_path) == [expected]
    # one bad run, and nothing is written
    assert main([str(tmp_path / "nowhere"), *given, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nowhere does not exist" in error
    assert not (tmp_path / "out").exists()
