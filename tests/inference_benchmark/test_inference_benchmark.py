"""bsconv benchmark: who takes turns when, what the table says of known times, and wrong inputs."""

import csv
import functools
import itertools
import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from bsconv.basics import timing
from bsconv.commands import benchmark
from bsconv.engines import ENGINES
from bsconv.experiments import inference_benchmark
from bsconv.experiments.config import TrainConfig
from bsconv.experiments.files.checkpoints import write_trained
from bsconv.experiments.inference_benchmark import InferenceBenchmark, Measurement, Setting, _run
from bsconv.experiments.normalization import Normalization
from bsconv.pytorch import BSConvS_Replacer, BSConvU, BSConvU_Replacer, ModelProfiler, get_model
from bsconv.pytorch.pretrained import apply_plan

MODEL = "cifar_wrn16_1"
GIVEN, FASTER = "as given", "eager"


@pytest.fixture(autouse=True)
def short_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MOST_ROUNDS", 1)
    monkeypatch.setattr(timing, "FEWEST_ROUNDS", 1)
    monkeypatch.setattr(_run, "TURN", 0.0)
    monkeypatch.setattr(_run, "SETTLE", 0.0)
    monkeypatch.setattr(_run, "measured_roof", lambda *_: (1e12, 4e9))


def tell(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    """Each call takes these seconds, one after the other, over and over."""
    given = itertools.cycle(seconds)
    clock = functools.partial(timing.in_turns, seconds_of=lambda work: [work(), next(given)][1])
    monkeypatch.setattr(_run, "in_turns", clock)


def row(network: str, computed: str, *seconds: float, batch_size: int = 1) -> Measurement:
    return Measurement(batch_size, network, computed, 1000, 300, 200, seconds, 4_000_000, 0.0003)


def table(*rows: Measurement) -> InferenceBenchmark:
    return InferenceBenchmark(Setting("net", "CPU (x86_64)", 2, "float32", "3x8x8"), rows)


# --- variants -------------------------------------------------------------------------------------


def test_variants_are_what_the_replacers_make() -> None:
    before = torch.get_rng_state()
    kinds = ["s", "dense", "u", "u", "cp"]
    models, notes = _run.build_variants(MODEL, 10, kinds, p=1 / 3, with_bn=True)
    names = ["BSConv-S, p = 1/3, with BatchNorm", "dense", "BSConv-U, with BatchNorm"]
    assert (list(models), notes) == ([*names, "BSConv-CP, with BatchNorm"], [])
    assert torch.equal(torch.get_rng_state(), before)
    again, _ = _run.build_variants(MODEL, 10, ["s"], p=1 / 3, with_bn=True)
    torch.testing.assert_close(again[names[0]].state_dict(), models[names[0]].state_dict())
    replaced = BSConvS_Replacer(p=1 / 3, with_bn=True).apply(get_model(MODEL, 10))
    assert models[names[0]].state_dict().keys() == replaced.state_dict().keys()
    for name, layer in models[names[2]].named_modules():
        if isinstance(layer, BSConvU):  # BSConv-CP takes the blueprints that weigh no more
            inputs, outputs = layer.in_channels, layer.out_channels
            blueprints = models["BSConv-CP, with BatchNorm"].get_submodule(name).pw1.out_channels
            spare = outputs * (inputs + 9) - blueprints * (inputs + outputs + 9)
            assert 0 <= spare < inputs + outputs + 9


@pytest.mark.parametrize("variants", [["u", "s"], ["dense", "u"]])
def test_what_replaces_nothing_is_left_out(variants: list[str], monkeypatch) -> None:
    def build(name: str, num_classes: int, bsconv: str | None = None, **_: Any) -> nn.Module:
        model = nn.Sequential(nn.Conv2d(3, num_classes, 1))
        return model if bsconv is None else BSConvU_Replacer().apply(model)  # which warns

    monkeypatch.setattr(_run, "build_model", build)
    models, notes = _run.build_variants("net", 10, variants)
    assert list(models) == ["dense"]
    assert "BSConv-U is left out: it replaces no convolution of net, see bsconv plan" in notes
    assert len(notes) == len(set(variants) - {"dense"})


# --- measuring ------------------------------------------------------------------------------------


def tiny() -> dict[str, nn.Module]:
    return {
        "dense": nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)),
        "BSConv-U": nn.Sequential(BSConvU(3, 8, 3), nn.BatchNorm2d(8)),
    }


def measured(models: dict[str, nn.Module] | None = None, **changes: Any) -> InferenceBenchmark:
    options = dict[str, Any](batch_sizes=[2], device="cpu", rounds=1, engines=["eager"])
    size = changes.pop("input_size", (3, 8, 8))
    return _run.benchmark_inference(models or tiny(), size, **options | changes)


def test_known_times_give_medians_ratios_and_the_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    # dense as given, dense in eager, U as given, U in eager: a call to warm up, three rounds
    warm = [1.0] * 4
    rounds = [4, 3, 8, 1.0], [1.2, 9, 3.1, 4.2], [4.4, 2.9, 10, 0.8]  # the second runs backwards
    tell(monkeypatch, *warm, *itertools.chain(*rounds))
    found = measured(name="tiny", rounds=3, notes=["a note"])
    assert [(one.network, one.computed) for one in found.rows] == [
        ("dense", GIVEN), ("dense", FASTER), ("BSConv-U", GIVEN), ("BSConv-U", FASTER)
    ]  # fmt: skip
    assert [one.median for one in found.rows] == [4.2, 3, 9, 1.0]
    assert found.rows[3].spread == pytest.approx((0.9, 1.1))
    ratios = [found.times_dense(one) for one in found.rows]
    assert ratios == [1, 1, pytest.approx(9 / 4.2), pytest.approx(1 / 3)]
    threads = f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    fastest = "BSConv-U (eager) is the fastest with batches of 2, 3.00 times as fast as dense"
    setting = rf"On this CPU \(\w+\) with {threads} in float32"
    assert re.fullmatch(rf"{setting}, {re.escape(fastest)} \(eager\)\.", found.summary)
    *_, legend, note, limit, sentence = str(found).splitlines()
    assert legend.startswith("tiny: images of 3x8x8; ")
    assert "median of 3 rounds in turns" in legend
    assert (note, sentence) == ("a note", found.summary)
    assert limit.startswith("limit: the roofline's, layer by layer at 1,000 GFLOP/s and 4 GB/s; ")


def test_costs_are_those_of_the_profiler_and_the_networks_compute_in_the_dtype() -> None:
    models = tiny()
    seen: list[torch.dtype] = []
    handle = models["dense"][0].register_forward_hook(lambda *given: seen.append(given[2].dtype))
    found = measured(models, dtype="bfloat16")
    handle.remove()
    assert torch.bfloat16 in seen
    for key, one in [("dense", found.rows[0]), ("BSConv-U", found.rows[3])]:
        cost = ModelProfiler(models[key], (1, 3, 8, 8))
        assert one.parameters == cost.total_parameter_count
        assert (one.flops, one.macs) == (cost.total_flop_count, cost.total_mac_count)
    assert found.rows[0].peak_bytes is None  # on a CPU
    assert "in bfloat16, " in found.summary


def test_each_engine_has_a_row_or_a_line_that_says_why_not(monkeypatch) -> None:
    assert tuple(ENGINES) == benchmark.ENGINES
    stubs = {name: Mock(**{"why_not.return_value": ""}) for name in ENGINES}
    stubs["openvino"].why_not.return_value = "needs openvino"
    said = {"compiled": ("given", ""), "onnxruntime": ("eager", "onnxruntime: no exporter")}

    def optimize(*_: Any, engines: str, **__: Any) -> Mock:
        ran, lost = said.get(engines, ("given", ""))
        return Mock(**{"report.engine": ran, "report.lost": lost})

    monkeypatch.setattr(_run, "ENGINES", stubs)
    monkeypatch.setattr(_run, "optimize_for_inference", optimize)
    found = measured({"net": nn.Conv2d(3, 4, 3)}, batch_sizes=[1, 2], engines=benchmark.ENGINES)
    assert [one.computed for one in found.rows] == [GIVEN, "eager"] * 2
    missing, _, *lost = found.notes
    assert missing == "openvino: needs openvino"
    assert lost == ["net in compiled: slower than as given", "net in onnxruntime: no exporter"]
    said["compiled"] = "compiled", ""
    assert measured(engines=["compiled"]).rows[1].computed == "compiled"


def test_the_limit_is_the_slower_of_arithmetic_and_memory_layer_by_layer(monkeypatch) -> None:
    taken = {"product": [3.0, 2 * 8**3 / 1e6], "copy": [2 * 1024 / 1e6, 9.0], "convolution": [9.0]}
    monkeypatch.setattr(_run, "ON_CPU", (8, 1024))
    monkeypatch.setattr(_run, "in_turns", lambda *_, **__: taken)
    roof = inference_benchmark.measured_roof(torch.device("cpu"), torch.float32)
    assert roof == pytest.approx((1e6, 1e6))
    conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)  # 2 * 4 * 64 * 27 FLOPs
    linear = nn.Linear(256, 10, bias=False)  # twice 5120 FLOPs, but 4 * 2560 bytes and its outputs
    cost = ModelProfiler(nn.Sequential(conv, nn.Flatten(), linear), (1, 3, 8, 8))
    least = (2 * 2 * 4 * 64 * 27 + 4 * (2560 + 2 * 2 * 10)) / 1e6
    assert _run._least_seconds(roof, cost, 2, 4) == pytest.approx(least)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_peak_memory_on_a_gpu_is_what_lives_at_a_time() -> None:
    images = torch.ones(1024, 1024, device="cuda")
    peak = _run._peak_bytes(lambda: images.relu().relu().relu(), images.device)
    assert peak == 2 * images.nbytes


def test_what_a_machine_cannot_compute_is_one_line() -> None:
    class NotInHalf(nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            if input.dtype == torch.float16:
                raise RuntimeError("no kernel\nfor Half")
            return super().forward(input)

    models = {"dense": nn.Sequential(NotInHalf(3, 4, 3))}
    message = r"dense cannot be computed in float16 on CPU .* batches of 3 x 3x8x8 \(no kernel for "
    with pytest.raises(ValueError, match=message):
        measured(models, batch_sizes=[3], dtype="float16")


# --- the sentence ---------------------------------------------------------------------------------

DENSE = row("dense", GIVEN, 4.0), row("dense", FASTER, 3.0, 3.1, 2.9)
FASTEST = "is the fastest with batches of"
UNCLEAR = "dense (eager) and BSConv-U (eager) are, within the spread of one another, the fastest"
ONCE = ", in a single round, which has no spread"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([*DENSE, row("BSConv-U", GIVEN, 6.0, 6.0), row("BSConv-U", FASTER, 6.2, 6.2)],
         f"dense (eager) {FASTEST} 1, 2.00 times as fast as BSConv-U (as given)"),
        ([*DENSE, row("BSConv-U", FASTER, 2.95, 3.02, 3.3), row("BSConv-S", FASTER, 6.0)],
         f"{UNCLEAR} with batches of 1, 2.00 times as fast as BSConv-S (eager)"),
        ([*DENSE, row("BSConv-U", FASTER, 2.95, 3.02, 3.3)], f"{UNCLEAR} with batches of 1"),
        ([*DENSE, row("BSConv-U", FASTER, 1.5, 1.5), row("dense", FASTER, 2.0, batch_size=16),
          row("BSConv-U", FASTER, 3.0, batch_size=16)],
         f"BSConv-U (eager) {FASTEST} 1, 2.00 times as fast as dense (eager); "
         f"dense (eager) {FASTEST} 16, 1.50 times as fast as BSConv-U (eager)"),
        ([row("dense", GIVEN, 3.0), row("BSConv-S", GIVEN, 2.0)],
         f"BSConv-S (as given) {FASTEST} 1, 1.50 times as fast as dense (as given){ONCE}"),
        ([row("BSConv-U", GIVEN, 0.004), row("BSConv-U", FASTER, 0.003)],
         f"BSConv-U (eager) takes 3.00 ms with batches of 1{ONCE}"),
    ],
)  # fmt: skip
def test_the_sentence(rows: list[Measurement], expected: str) -> None:
    assert table(*rows).summary == f"On this CPU (x86_64) with 2 threads in float32, {expected}."


def test_without_a_dense_network_there_is_no_ratio() -> None:
    alone = table(row("BSConv-U", GIVEN, 0.0012))
    assert alone.times_dense(alone.rows[0]) is None
    cells = "1 BSConv-U as given (0.4.0) * 1,000 300 200 1.20 1.20 to 1.20 833 0.30 25% 4.0"
    assert str(alone).splitlines()[2].split() == cells.split()


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_table_figure_and_csv(tmp_path: Path, said: Any) -> None:
    files = ("--out", tmp_path / "f.svg", "--csv", tmp_path / "t.csv")
    settings = "--variants dense,s --batch-size 1,2 --rounds 1 --device cpu --no-compile"
    printed = said("benchmark", MODEL, *settings.split(), *files)
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[-1].startswith("On this CPU (")
    assert lines[0].split()[:3] == ["batch", "network", "computed"]
    with (tmp_path / "t.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    ways = {one["computed"] for one in written}
    told = [name for name in ENGINES if any(line.startswith(f"{name}: needs ") for line in lines)]
    assert sorted([*ways, *told]) == sorted({GIVEN, *ENGINES} - {"compiled"})
    assert len(written) == len(lines) - 5 - len(told) == 2 * 2 * len(ways)
    assert {one["network"] for one in written} == {"dense", "BSConv-S, p = 1/4"}
    times = [(one["batch_size"], one["network"], float(one["seconds"])) for one in written]
    for one, line in zip(written, lines[2:], strict=False):
        assert all(f" {int(one[name]):,} " in line for name in ("parameters", "flops", "macs"))
        seconds = float(one["seconds"])
        assert f"{1e3 * seconds:.2f}" in line
        words = one["dtype"], one["input_size"], one["rounds"], one["peak_bytes"]
        assert words == ("float32", "3x32x32", "1", "")
        least = min(each for *which, each in times if which == [one["batch_size"], one["network"]])
        assert (one["fastest"], " * " in line) == (str(seconds == least), seconds == least)
        reached = float(one["limit_seconds"]) / seconds
        assert float(one["limit_reached"]) == pytest.approx(reached)
        assert f" {reached:.0%}" in line
        assert float(one["images_per_second"]) == pytest.approx(int(one["batch_size"]) / seconds)
    assert "<svg" in (tmp_path / "f.svg").read_text()
    assert {file.name for file in tmp_path.iterdir()} == {"f.svg", "t.csv"}  # written whole


def test_a_bsconv_network_by_its_name(said: Any) -> None:
    name = f"{MODEL}_bsconvu"
    settings = "--device cpu --engines eager --rounds 1 --batch-size 1 --input-size 16"
    *_, legend, note, _, sentence = said("benchmark", name, *settings.split()).out.splitlines()
    assert "images of 3x16x16" in legend
    assert note == f"{name} is a BSConv network already and is measured alone"
    assert "BSConv-U (" in sentence


def test_what_a_projection_wrote_is_one_network_more(tmp_path, said, failure) -> None:
    student, plan = get_model(MODEL, 10), {"backbone.stage1.unit1.conv1.conv": "cp:8"}
    for weight in apply_plan(student, plan).parameters():
        weight.data.fill_(0.01)
    write_trained(tmp_path / "s", student, TrainConfig(model=MODEL), 10, plan)
    settings = "--engines eager --device cpu --rounds 1 --batch-size 1 --variants dense --json"
    rows = json.loads(said("benchmark", "--checkpoint", tmp_path / "s", *settings.split()).out)
    found = {one["network"]: one for one in rows["rows"]}
    cost = ModelProfiler(student, (1, 3, 32, 32))
    assert (rows["model"], list(found)) == (MODEL, ["dense", "from s"])
    assert found["from s"]["macs"] == cost.total_mac_count < found["dense"]["macs"]
    assert "MODEL or --checkpoint is missing" in failure("benchmark")
    assert "not of cifar_wrn" in failure("benchmark", f"{MODEL}0", "--checkpoint", tmp_path / "s")


def test_every_option_is_passed_on(monkeypatch, said: Any) -> None:
    result = table(row("dense", GIVEN, 1.0))
    build = Mock(return_value=({"dense": nn.Identity()}, ["a note"]))
    measure = Mock(return_value=result)
    monkeypatch.setattr(inference_benchmark, "build_variants", build)
    monkeypatch.setattr(inference_benchmark, "benchmark_inference", measure)
    line = "benchmark net --variants s,u --p 1/2 --with-bn --batch-size 8,2,8 --dtype bfloat16"
    line += " --input-size 1x5x6 --num-classes 7 --rounds 3 --no-compile --normalize none"
    assert said(*line.split(), "--device", "cpu").out == f"{result}\n"
    build.assert_called_once_with("net", 7, ("s", "u"), p=0.5, with_bn=True)
    measure.assert_called_once_with(
        build.return_value[0], (1, 5, 6), name="net", batch_sizes=(8, 2), dtype="bfloat16",
        device="cpu", rounds=3, notes=["a note"], normalization=Normalization(),
        engines=("eager", "onnxruntime", "openvino"),
    )  # fmt: skip
