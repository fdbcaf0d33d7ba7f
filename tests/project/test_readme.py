"""What the README and the guide show is true: code runs, commands exist, figures hold."""

import json
import re
import shlex
from functools import cache
from pathlib import Path

import figures
import pytest
from PIL import Image

from bsconv.__main__ import main, make_parser
from bsconv.experiments.model_sources import build_model
from bsconv.experiments.results import Summary, load_records, published_results, summarize
from bsconv.pytorch import ModelProfiler
from golden import questions, recorded
from helpers.notebooks import NOTEBOOKS, cells_of
from helpers.paths import ROOT

PAGES = {
    path: path.read_text(encoding="utf-8")
    for folder in (".", "benchmarks", "docs", "results")
    for path in (ROOT / folder).glob("*.md")
}
README, RESULTS = PAGES[ROOT / "README.md"], PAGES[ROOT / "results" / "README.md"]
TRAINED, MIGRATING = (ROOT / "docs" / f"{name}.md" for name in ("trained_networks", "migrating"))
RECORDS = ROOT / "results"
GUIDE = "\n".join(PAGES.values())
CELLS = [cell for path in NOTEBOOKS for cell in cells_of(path) if cell["cell_type"] == "markdown"]
TEXT = "\n".join([GUIDE, *(cell["source"] for cell in CELLS)])


def blocks(language: str, text: str = GUIDE) -> list[str]:
    """All blocks of code in ``language``, without repetition."""
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(
    "code",
    [b for b in blocks("python") if "load_run" not in b],
    ids=lambda code: code.splitlines()[-1],
)
def test_python_block_runs(code):
    exec(compile(code, "README.md", "exec"), {})


def test_the_three_promised_lines_are_shown_as_written():
    for line in (
        "model = bsconv.pytorch.BSConvU_Replacer().apply(model)",
        "model = bsconv.pytorch.BSConvS_Replacer().apply(model)",
        "loss += model.reg_loss(alpha=0.1)",
    ):
        assert line in README.splitlines()


def commands(program: str) -> list[list[str]]:
    """What calls ``program`` in a block or an indented line of code, also by torchrun."""
    code = "\n".join(blocks("(?:ba)?sh", TEXT) + re.findall(r"^ {4}.*", TEXT, re.MULTILINE))
    call = rf"^ *(?:torchrun .* -m )?({program} [^#\n]*)"
    calls = re.findall(call, code.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(call) for call in dict.fromkeys(calls)]


@pytest.mark.parametrize("command", commands("bsconv"), ids=" ".join)
def test_command_line_accepts_the_command(command):
    assert make_parser().parse_args(command[1:]).command == command[1]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):.* ## ", makefile, re.MULTILINE))
    assert {command[1] for command in commands("make")} <= targets


def test_measured_accuracies_are_what_the_command_prints(capsys):
    assert main(["results", "--results", str(RECORDS), "--markdown"]) == 0
    begin, end = "<!-- bsconv results --markdown -->", "<!-- end of bsconv results -->"
    shown = re.search(f"^{begin}\n\n(.*?)\n{end}$", RESULTS, re.MULTILINE | re.DOTALL)
    assert shown[1] == capsys.readouterr().out


N, DB, CELL = r"(\d+\.\d+) ?%", r"(\d+\.\d)", r"(\d[\d.]*)(?: %)? \| "
TAUGHT = {
    "our ResNet-20": "cifar_resnet20",
    "the VGG": "small_vgg",
    "the MobileNet": "cifar_mobilenetv1_w1d4",
    "the one trained elsewhere": "ResNet20",
}
COMPRESSED = {"cifar_resnet20": "", "small_vgg": "vgg ", "cifar_mobilenetv1_w1d4": "v1 "}
CLAIMS = {  # what pages and notebooks say, often several of them, and where the numbers come from
    rf"WRN-16-1 on CIFAR-10: {N} dense, {N} as BSConv-U": "wrn16_1 40, wrn16_1_bsconvu 40",
    rf"same width, {N} as BSConv-U": "wrn16_2_bsconvu 40",
    rf"WRN-28-10 on CIFAR-100: {N}.*?, {N}": "wrn28_10 published, wrn28_10_bsconvs_p1d4 published",
    rf"ResNet-20(?: on CIFAR-10)?: {N} dense": "dense 100%",
    rf"{N} (?:with 25 %|at a quarter)": "bsconv 25%",
    rf"{N} with 35 %": "bsconv 35%",
    rf"our ResNet-20 \| {4 * CELL}": "bsconv 15%, bsconv 25%, bsconv 35%, bsconv 47%",
    rf"its time.*? \| {4 * CELL}": "time 15%, time 25%, time 35%, time 47%",
    rf"{N} \(spatial SVD\) and {N}": "spatial svd 25%, tucker-2 25%",
    rf"small VGG.*? \| {3 * CELL}": "vgg bsconv 15%, vgg bsconv 25%, vgg bsconv 35%",
    rf"VGG's time \| {3 * CELL}": "vgg time 15%, vgg time 25%, vgg time 35%",
    rf"{N} \(spatial SVD\) for\sthe VGG": "vgg spatial svd 25%",
    rf"VGG keeps ([\d.]+) of {N} at 25 %": "vgg bsconv 25%, vgg dense 100%",
    rf"MobileNetV1 ([\d.]+) of\s{N} at 47 %": "v1 bsconv 47%, v1 dense 100%",
    rf"HED\b[^;.]*\s{DB} and {DB} dB": "vgg16_hed astronaut, vgg16_hed chelsea",
    rf"animevideov3\b[^;.]*\s{DB} and {DB} dB": "animevideov3 astronaut, animevideov3 chelsea",
    rf"without the fit, has {N}\sand {N}": "cp of the weights 25%, vgg cp of the weights 25%",
    rf"(?:dense, |BSConv-U keeps |ours, .* 91.5 \| ){N}(?: \|| projected| and)": "bsconv-u 18%",
    rf"(?:BSConv-U to|projected to BSConv-U,) {N}(?:;| after)": "resnet20 3 resnet20_u_projected",
    rf"(?:training,|and) {N} after three epochs": "resnet20 3 small",
    rf"(?:epochs from |ResNet-20 has\s|it had ){N}(?: before| when projected| \|)": "before",
    **{
        rf"{row}, then \|(?: (?:[\d.]+ )?\|){{2}} {2 * CELL}": f"then {name} 35%, then {name} 47%"
        for row, name in TAUGHT.items()
    },
    rf"from scratch reach {N}": "resnet20 3",
    r"with (0\.\d+) of the parameters": "size of wrn16_2_bsconvu",
    r"224x224: (\d+) ms as BSConv-U, (\d+) ms": "ms as BSConv-U, ms dense",
    r"(\d\.\d) points more after 20 epochs(?: \(3 seeds\))?, 1\.0": "what V1 gains",
    r"V2: (\d\.\d) points (?:more )?after 5": "what V2 gains",
    rf"{N} plain and {N} with it": "mobilenetv2_w1d4 20, mobilenetv2_w1d4_bsconvs_p1d6 20",
}


@cache
def recorded_runs() -> list[Summary]:
    return summarize(load_records(RECORDS))


@cache
def measured() -> dict[str, float]:
    """By what was measured: means of recorded runs, records of budgets, a table of engines."""
    runs = {}
    for summary in recorded_runs():
        config = summary.config
        start = f" {Path(config.weights).stem}" if config.weights else ""
        runs[f"{config.model} {config.epochs}{start}"] = summary.mean
        runs[f"size of {config.model.removeprefix('cifar_')}"] = summary.parameters / 175_072
        for before in re.findall(r"\((\S+) % before\)", summary.runs[0].note):
            runs["before"] = float(before)
    for name, of in COMPRESSED.items():
        dense, *rows = json.loads((RECORDS / "compression" / f"{name}.json").read_text())["rows"]
        for row in (dense, *rows):
            runs[f"{of}{row['method']} {row['budget']:.0%}"] = row["accuracy"]
            if row["method"] == "bsconv":
                runs[f"{of}time {row['budget']:.0%}"] = 100 * row["seconds"] / dense["seconds"]
    for row in json.loads((RECORDS / "compression" / "distilled.json").read_text())["rows"]:
        runs[f"then {row['network']} {row['budget']:.0%}"] = row["after"]
    for name in ("vgg16_hed", "animevideov3"):
        half = json.loads((RECORDS / "compression" / f"{name}.json").read_text())["rows"][0]
        runs |= {f"{name} {photo[:-4]}": value for photo, value in half["decibels"].items()}
    engines = r"^\| ResNet-18,? (as BSConv-U|dense), 16 images \| (.*) \| \d+ s \|$"
    for name, times in re.findall(engines, GUIDE, re.MULTILINE):
        runs[f"ms {name}"] = min(map(float, times.split(" | ")))  # in the fastest engine
    published = published_results().items()
    runs |= {f"{name} published": one.top1 for (data, name), one in published if data == "cifar100"}
    for name, variant, after in (("V1", "bsconvu", 20), ("V2", "bsconvs_p1d6", 5)):
        plain = f"cifar_mobilenet{name.lower()}_w1d4"
        runs[f"what {name} gains"] = runs[f"{plain}_{variant} {after}"] - runs[f"{plain} {after}"]
    return {name.removeprefix("cifar_"): value for name, value in runs.items()}


@pytest.mark.parametrize("claim", CLAIMS)
def test_numbers_on_pages_are_those_measured(claim):
    known = measured()
    assert re.search(claim, TEXT)
    for match in re.finditer(claim, TEXT):
        for shown, source in zip(match.groups(), CLAIMS[claim].split(", "), strict=True):
            unit = 0.1 ** len(shown.partition(".")[2])
            assert abs(float(shown) - known[source]) < 0.501 * unit, match[0]


@pytest.mark.parametrize(("page", "epochs"), [("README", 40), ("docs/training", 20)])
def test_tables_of_equal_budgets_are_those_of_the_records(page, epochs):
    row = r"^\| .* \| `([\w.:]+)` \| (\S+) \| (\S+) M \| (.+) \| (\d) \|$"
    rows = re.findall(row, PAGES[ROOT / f"{page}.md"], re.MULTILINE)
    assert len(rows) == {40: 3, 20: 5}[epochs]
    runs = {one.config.model: one for one in recorded_runs() if one.config.epochs == epochs}
    for name, parameters, macs, accuracy, count in rows:
        profile = ModelProfiler(build_model(name, 10), (1, 3, 32, 32))
        run = runs[name]
        spread = f" ({run.lowest:.2f} to {run.highest:.2f})" if len(run.runs) > 1 else ""
        assert int(parameters.replace(",", "")) == profile.total_parameter_count
        assert macs == f"{profile.total_mac_count / 1e6:.1f}"
        assert (accuracy, int(count)) == (f"{run.mean:.2f} %{spread}", len(run.runs))


def test_packaged_weights_have_the_accuracies_that_the_page_states():
    row = r"^\| \[`(\w+)`\]\((\S+)\) \| recipe `(\w+)`, (\d+) epochs.* \| (\S+) \|$"
    rows = re.findall(row, PAGES[TRAINED], re.MULTILINE)
    assert len(rows) == len(list((ROOT / "bsconv" / "weights").glob("*/*.json")))
    for name, path, recipe, epochs, top1 in rows:
        note = json.loads((TRAINED.parent / path).read_text())
        config = note["config"]
        assert (name, recipe, int(epochs)) == (config["model"], config["recipe"], config["epochs"])
        assert top1 == f"{note['test_top1']:.2f}"


@pytest.mark.slow
def test_figures_are_those_that_the_records_give(tmp_path, monkeypatch):
    """`make figures` draws them; pixels are compared only for the same version of matplotlib."""
    monkeypatch.setattr(figures, "FOLDER", tmp_path)
    assert figures.main() == 0
    shown = re.findall(r"!\[[^\]]+\]\(docs/figures/(\S+)\)", README)
    assert sorted(shown) == sorted(path.name for path in tmp_path.iterdir())
    for name in shown:
        folder = ROOT / "docs" / "figures"
        with Image.open(folder / name) as kept, Image.open(tmp_path / name) as now:
            assert kept.size == now.size
            if kept.info["Software"] == now.info["Software"]:
                assert kept.tobytes() == now.tobytes(), f"{name} is out of date: make figures"


def test_the_table_for_migrants_is_true_of_both_packages():
    rows = re.findall(r"^\| (.+) \| (yes|no) \| (yes|no) \|$", PAGES[MIGRATING], re.MULTILINE)
    shown = {row: (before == "yes", here == "yes") for row, before, here in rows}
    theirs = recorded("questions")
    assert shown == {row: (theirs[row], here) for row, here in questions.questions().items()}
