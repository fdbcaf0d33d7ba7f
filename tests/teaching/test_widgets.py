"""Widgets: what they compute is what oracles say, and each control moves what is shown."""

import base64
import importlib
import itertools
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from fractions import Fraction
from functools import partial
from typing import Any

import ipywidgets
import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import nn

from bsconv import pytorch as bp
from bsconv.pytorch.plan import LayerPlan, Plan
from bsconv.teaching import widgets
from bsconv.teaching.widgets._cost import layer_costs
from bsconv.teaching.widgets._kernels import closest_of_rank, kernel_of
from bsconv.teaching.widgets._scrubber import comparisons
from bsconv.teaching.widgets._surgeon import stage_parameters
from helpers.records import record

PNG = b"\x89PNG"


@pytest.fixture(autouse=True)
def no_figure_is_left_open() -> Iterator[None]:
    mpl.use("agg")
    plt.close("all")
    yield
    assert plt.get_fignums() == []


def small_net() -> nn.Module:
    """Layers of 3, 8 and 8 slices per filter; the depthwise one has nothing to compare."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 5, 5), nn.Conv2d(8, 4, 1)
    )


RECORDS = [
    *(record(15 + n, 25 + n, 35 + n, model="cifar_resnet20", seed=n) for n in range(3)),
    *(record(10 + n, 20 + n, 30 + n, seed=n) for n in range(2)),
    record(10, 20, 30, 40, 50, 60, 70, model="cifar_wrn16_1"),
]
NETS = {"small": small_net, "resnet20": partial(bp.get_model, "cifar_resnet20", 10)}

MAKERS: dict[str, Callable[[], Any]] = {
    "kernel explorer": lambda: widgets.kernel_explorer(small_net()),
    "rank slider": lambda: widgets.rank_slider(small_net()),
    "cost calculator": widgets.cost_calculator,
    "order toggle": widgets.order_toggle,
    "model surgeon": lambda: widgets.model_surgeon(NETS),
    "training scrubber": lambda: widgets.training_scrubber(RECORDS),
}


def plain(panel: Any) -> str:
    """The text without its tags."""
    return re.sub(r"<[^>]*>", " ", panel.text.value).replace("&#x27;", "'")


def ends(control: Any) -> list[Any]:
    """The first and the last value of a control, as things stand."""
    if isinstance(control, ipywidgets.IntSlider):
        return [control.min, control.max]
    if isinstance(control, ipywidgets.Text):
        return ["backbone*", "*"]
    return [control.options[0][1], control.options[-1][1]]


# all panels


@pytest.mark.parametrize("title", MAKERS)
def test_each_control_moves_the_text_and_the_picture(title: str) -> None:
    panel = MAKERS[title]()
    assert isinstance(panel, ipywidgets.VBox)
    assert 'aria-live="polite"' in panel.text.value
    for control in panel.controls.values():
        assert len(control.description) >= 5
        assert not getattr(control, "continuous_update", False)
        seen, values = set(), ends(control)
        for value in values:
            control.value = value
            assert control.value == value
            seen.add(panel.text.value)
            assert panel.picture.value[:4] == PNG
        assert not any(re.search(r"color|background|#[0-9a-f]{3}\b", text) for text in seen)
        assert len(seen) == len(values)
    stored = panel._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in stored
    assert stored["text/plain"] == repr(panel) == panel.summary
    assert base64.b64decode(stored["image/png"]) == panel.picture.value  # where no kernel runs
    assert panel.summary.startswith(f"{title}: ")
    assert "\n" not in panel.summary
    assert panel.summary.removeprefix(f"{title}: ") in plain(panel)


def test_of_two_moves_at_once_the_later_one_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    toggle = widgets.order_toggle(M=5, N=4)
    view, begun, go_on = toggle._view, threading.Event(), threading.Event()

    def slowly(**values: Any) -> Any:
        found = view(**values)
        if values["N"] == 4:
            begun.set()
            assert go_on.wait(60)
        return found

    monkeypatch.setattr(toggle, "_view", slowly)
    with ThreadPoolExecutor(2) as pool:
        pool.submit(setattr, toggle.controls["M"], "value", 6)
        assert begun.wait(60)
        second = pool.submit(setattr, toggle.controls["N"], "value", 2)
        wait([second], 1)  # it waits for the first one
        go_on.set()
    assert "6·2 + 6·3²" in plain(toggle)


def test_without_ipywidgets_the_error_says_how_to_install_them(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith(widgets.__name__)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match=r"need the package ipywidgets: pip install 'bsconv\["):
        importlib.import_module(widgets.__name__)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: widgets.kernel_explorer(small_net(), "1"), "layer needs to be one .*, got '1'"),
        (lambda: widgets.rank_slider({"first.weight": small_net()[0].weight}, "fist"), "n first?"),
        (lambda: widgets.kernel_explorer(small_net(), "2", 5), "filter needs to be 0 to 4, got 5"),
        (lambda: widgets.rank_slider(small_net(), rank=4), "rank needs to be 1 to 3, got 4"),
        (lambda: widgets.rank_slider(small_net(), rank=0), "rank needs to be 1 to 3, got 0"),
        (lambda: widgets.kernel_explorer(nn.Conv2d(3, 4, 1)), "source needs a convolution with"),
        (lambda: widgets.cost_calculator(M=65), r"M needs to be one of \[1, .*, got 65"),
        (lambda: widgets.cost_calculator(p=0.3), "p needs to be one of .*, got 0.3"),
        (lambda: widgets.order_toggle(M=7), "M needs to be 2 to 6, got 7"),
        (lambda: widgets.order_toggle(N=1), "N needs to be 2 to 6, got 1"),
        (lambda: widgets.model_surgeon({}), "architectures needs at least one, got none"),
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# kernels


def energies(kernel: torch.Tensor, center: bool = False) -> np.ndarray:
    slices = kernel.detach().double().flatten(1).numpy()
    return np.linalg.svd(slices - slices.mean(0) * center, compute_uv=False) ** 2


@pytest.mark.parametrize("shape", [(16, 3, 3), (4, 5, 5), (2, 3, 1), (100, 3, 3)])
def test_the_explorer_says_the_share_of_the_first_component(shape: tuple[int, ...]) -> None:
    kernels = torch.randn(2, *shape)
    explorer = widgets.kernel_explorer(kernels, filter=1)
    variance, energy = (energies(kernels[1], center) for center in (True, False))
    assert f"explains {variance[0] / variance.sum():.1%} of the variance" in plain(explorer)
    assert f"keeps {energy[0] / energy.sum():.1%} of the energy" in plain(explorer)


@pytest.mark.parametrize("rank", [1, 2, 5, 9])
def test_the_closest_kernel_of_a_rank_is_numpys(rank: int) -> None:
    kernel = torch.randn(16, 3, 3)
    closest, kept = closest_of_rank(kernel, rank)
    left, values, right = np.linalg.svd(kernel.double().flatten(1).numpy(), full_matrices=False)
    values[rank:] = 0
    np.testing.assert_allclose(closest.flatten(1), left * values @ right, atol=1e-12)
    lost = (kernel - closest).square().sum() / kernel.double().square().sum()
    assert kept == pytest.approx(1 - lost.item())
    assert np.linalg.matrix_rank(closest.flatten(1).numpy()) == rank


def test_all_of_a_kernel_of_zeros_is_kept() -> None:
    assert "100.0%" in plain(widgets.rank_slider(torch.zeros(2, 4, 3, 3)))
    assert "100.0%" in plain(widgets.kernel_explorer(torch.zeros(2, 4, 3, 3)))


@pytest.mark.parametrize("name", ["kernel_explorer", "rank_slider"])
def test_layers_and_filters_follow_the_source(name: str) -> None:
    net = small_net()
    panel = getattr(widgets, name)(net, layer="2", filter=4)
    layer, filter = panel.controls["layer"], panel.controls["filter"]
    assert [value for _, value in layer.options] == ["0", "2"]
    assert "2, filter 4" in plain(panel)
    layer.value, filter.value = "0", 7
    assert filter.description == "filter n (0 to 7)"
    assert "0, filter 7" in plain(panel)
    layer.value = "2"  # which has 5 filters
    assert (filter.value, filter.description) == (4, "filter n (0 to 4)")
    assert getattr(widgets, name)(net.state_dict(), layer="0").controls["layer"].value == "0"
    assert "weight, filter 0" in plain(getattr(widgets, name)(net[2].weight))


@pytest.mark.slow
def test_the_rank_slider_says_what_is_kept() -> None:
    net = small_net()
    slider = widgets.rank_slider(net, layer="2", filter=3, rank=8)
    shares = energies(net[2].weight[3]).cumsum() / energies(net[2].weight[3]).sum()
    for rank, kept in enumerate(shares, 1):
        slider.controls["rank"].value = rank
        assert f"keeps {kept:.1%} of the energy" in plain(slider)
        assert ("BSConv-U, one blueprint" in plain(slider)) == (rank == 1)
        assert f"{rank} · (8 + 5²) = {rank * 33}" in plain(slider)
    slider.controls["layer"].value = "0"  # of 3 slices
    assert slider.controls["rank"].value == 3
    assert "rank 3" in plain(slider)


# costs


def built(M: int, N: int, K: int, p: float, stride: int) -> list[nn.Module]:
    geometry = {"stride": stride, "padding": K // 2, "bias": False}
    return [
        nn.Conv2d(M, N, K, **geometry),
        nn.Sequential(nn.Conv2d(M, M, K, groups=M, **geometry), nn.Conv2d(M, N, 1, bias=False)),
        bp.BSConvU(M, N, K, **geometry),
        bp.BSConvS(M, N, K, **geometry, p=p),
    ]


@pytest.mark.parametrize(("M", "N"), [(1, 8), (3, 16), (64, 64), (24, 7)])
@pytest.mark.parametrize(("K", "H", "W"), [(1, 8, 7), (3, 1, 1), (5, 8, 7)])
def test_costs_and_their_formulas_are_those_of_the_layers_built(M, N, K, H, W) -> None:
    for p, stride in itertools.product((1 / 6, Fraction(1, 4), 1), (1, 2)):
        costs = layer_costs(M, N, K, p, H, W, stride)
        for cost, layer in zip(costs, built(M, N, K, p, stride), strict=True):
            profile = bp.ModelProfiler(layer, (1, M, H, W))
            assert cost.parameters == profile.total_parameter_count
            assert cost.macs == profile.total_mac_count
            letters, parameters = cost.parameters_formula.split(" = ", 1)
            assert set(letters) <= set("M'NK² +")
            for formula, count in ((parameters, cost.parameters), (cost.macs_formula, cost.macs)):
                numbers, result = formula.split(" = ")
                assert eval(numbers.replace("·", "*").replace("²", "**2")) == count
                assert result == f"{count:,}"


def test_the_calculator_shows_counts_and_formulas() -> None:
    calculator = widgets.cost_calculator(M=64, N=128, K=3, p=1 / 4, H=32, W=32)
    assert "M N + N K² = 64·128 + 128·3² = 9,344" in plain(calculator)
    calculator.controls["stride"].value = 2
    calculator.controls["W"].value = 16
    for cost in layer_costs(64, 128, 3, 1 / 4, 32, 16, 2):
        for shown in (f"{cost.parameters:,}", f"{cost.macs:,}", cost.macs_formula):
            assert shown in plain(calculator)


# order


@pytest.mark.parametrize(("M", "N"), [(2, 6), (5, 4), (6, 2), (6, 6)])
def test_either_order_shares_the_slices_it_says(M: int, N: int) -> None:
    toggle = widgets.order_toggle(M, N)
    for order, by_filter, by_channel, alike, formula in (
        # the patterns are linearly independent
        ("depthwise first", M, 1, "column", f"M N + M K² = {M}·{N} + {M}·3² = {M * N + M * 9}."),
        ("pointwise first", 1, N, "row", f"M N + N K² = {M}·{N} + {N}·3² = {M * N + N * 9}."),
    ):
        kernel = kernel_of(order, M, N)
        assert kernel.shape == (N, M, 3, 3)
        for matrices, rank in ((kernel, by_filter), (kernel.transpose(0, 1), by_channel)):
            assert {int(np.linalg.matrix_rank(one)) for one in matrices.flatten(2)} == {rank}
        toggle.controls["order"].value = order
        ranks = ", ".join(N * [str(by_filter)]), ", ".join(M * [str(by_channel)])
        said = f"filter n: {ranks[0]}; of those that see each channel m: {ranks[1]}."
        for text in (said, formula, f"alike in each {alike}", f"{by_filter * by_channel} patterns"):
            assert text in plain(toggle)


# surgeon


@pytest.mark.parametrize(
    ("replacer", "shown", "p"),
    [
        (bp.BSConvU_Replacer((3, 5)), "3 x 3 and 5 x 5", 1 / 4),
        (bp.BSConvS_Replacer((3,), 1 / 6, exclude=["backbone.stage1", "*.conv2"]), "3 x 3", 1 / 6),
        (bp.BSConvS_Replacer(None, 1.0), "all", 1.0),
    ],
)
def test_the_surgeon_shows_what_the_replacer_plans(replacer, shown, p, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(
        "bsconv.experiments.plotting.bar_rows",
        lambda names, series, **texts: drawn.append((names, series)) or Figure(),
    )
    surgeon = widgets.model_surgeon(NETS)
    rule, exclude = "US"[isinstance(replacer, bp.BSConvS_Replacer)], ", ".join(replacer.exclude)
    given = {"architecture": "resnet20", "rule": rule, "p": p, "kernel_sizes": shown}
    for name, value in {**given, "exclude": exclude}.items():
        surgeon.controls[name].value = value
    plan = replacer.plan(NETS["resnet20"]())
    assert plan.summary in plain(surgeon)
    for layer in plan.layers:
        for text in (layer.name, layer.description):
            assert text in plain(surgeon)
        for count in (layer.parameters_before, layer.parameters_after):
            assert f"{count:,}" in plain(surgeon)
    names, series = drawn[-1]
    assert names == list(stage_parameters(plan))
    assert list(zip(*series.values(), strict=True)) == list(stage_parameters(plan).values())


@pytest.mark.parametrize(
    ("names", "stages"),
    [
        (["conv1", "layer1.0.conv1", "layer1.1.conv1", "layer2.0"], ["conv1", "layer1", "layer2"]),
        (["a.b.x.conv", "a.b.y.conv", "a.c.conv"], ["a.b.x", "a.b.y", "a.c.conv"]),
        (["a.x", "a.y"], ["a.x", "a.y"]),
        ([""], ["(root)"]),
        ([], []),
    ],
)
def test_stages_are_named_by_what_tells_them_apart(names: list[str], stages: list[str]) -> None:
    layers = tuple(LayerPlan((name,), True, "", 10 + n, n) for n, name in enumerate(names))
    found = stage_parameters(Plan(layers, 0, 0))
    assert list(found) == stages
    for stage, (before, after) in found.items():
        inside = [one for one in layers if stage == "(root)" or one.name.startswith(stage)]
        assert before == sum(layer.parameters_before for layer in inside)
        assert after == sum(layer.parameters_after for layer in inside)


def test_the_surgeon_says_why_there_is_no_plan() -> None:
    surgeon = widgets.model_surgeon(NETS)
    surgeon.controls["exclude"].value = "nothing"
    assert "no plan" in plain(surgeon)
    assert "exclude names no layer of this model: 'nothing'" in plain(surgeon)
    assert not surgeon.picture.value
    # an image without content would be shown as a broken one
    assert surgeon.picture.layout.display == "none"
    surgeon.controls["exclude"].value = ""
    assert "2 of 4 convolutions replaced" in plain(surgeon)
    assert surgeon.picture.value[:4] == PNG
    assert surgeon.picture.layout.display is None


def test_the_surgeon_brings_networks_of_its_own() -> None:
    summary = widgets.model_surgeon().summary
    assert "cifar_resnet20 to BSConv-U: 19 of 22 convolutions replaced" in summary


# scrubber


def test_runs_are_compared_with_their_variants() -> None:
    # how steps are computed may differ
    found = comparisons([*RECORDS, record(model="cifar_resnet20", seed=3, precision="bfloat16")])
    assert [list(runs) for runs in found.values()] == [["dense", "BSConv-U"], ["dense"]]
    (resnet, wrn) = found
    assert resnet.startswith("cifar_resnet20, cifar10, fast")
    assert wrn.endswith("7 epochs")
    assert len(found[resnet]["dense"].runs) == 4


def test_the_scrubber_shows_the_numbers_of_the_epoch() -> None:
    scrubber = widgets.training_scrubber(RECORDS)
    runs, epoch = scrubber.controls["runs"], scrubber.controls["epoch"]
    assert "after epoch 3 of 3, test top-1 is dense 36.00 %, BSConv-U 30.50 %" in plain(scrubber)
    for number in (1, 2):
        epoch.value = number
        top1 = 10 * number + 5.0  # of the first of three seeds
        assert f"is dense {top1 + 1:.2f} %, BSConv-U {top1 - 4.5:.2f} %" in plain(scrubber)
        row = f"dense 3 {2 / number:.3f} {top1 + 1:.2f} {top1:.2f} to {top1 + 2:.2f} 0.1000"
        assert row in " ".join(plain(scrubber).split())
    resnet, wrn = comparisons(RECORDS)
    runs.value, epoch.value = wrn, 7
    assert "after epoch 7 of 7, test top-1 is dense 70.00 %" in plain(scrubber)
    runs.value = resnet
    assert (epoch.value, epoch.description) == (3, "epoch (1 to 3)")


def test_without_records_the_scrubber_says_so() -> None:
    scrubber = widgets.training_scrubber([])
    assert "no recorded runs in results/" in plain(scrubber)
    assert scrubber.controls == {}
