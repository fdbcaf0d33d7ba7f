"""Networks for signals and volumes: what is there for images is there for them, and is as right."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bsconv import pytorch as bp
from bsconv.pytorch.modules import BLUEPRINT_LAYERS
from helpers.exact_errors import raises_exactly
from helpers.inference_cases import trained

DIMENSIONS = (1, 2, 3)


class Reshaped(nn.Module):
    """A network for inputs of another shape, such as samples (B, T) of a sound."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.shape = network, shape

    def forward(self, input: Tensor) -> Tensor:
        return self.network(input.reshape(len(input), *self.shape))


def network(dimensions: int) -> nn.Module:
    conv: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    norm: Any = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dimensions]
    return nn.Sequential(
        conv(4, 16, 3, padding=1), norm(16), nn.ReLU(),
        conv(16, 24, 3, padding=1, stride=2, bias=False), norm(24), nn.ReLU(),
        conv(24, 24, 3, padding=1, padding_mode="circular"), nn.ReLU(),
        nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "signals": lambda: (network(1), (4, 16)),
    "sounds": lambda: (Reshaped(network(1), (4, 16)), (64,)),
    "images": lambda: (network(2), (4, 8, 8)),
    "volumes": lambda: (network(3), (4, 6, 6, 4)),
    "stacks": lambda: (Reshaped(network(3), (4, 6, 6, 4)), (24, 6, 4)),
}
REPLACERS = {
    "u": functools.partial(bp.BSConvU_Replacer, dimensions=DIMENSIONS),
    "s": functools.partial(bp.BSConvS_Replacer, dimensions=DIMENSIONS, p=0.5),
}
all_networks = pytest.mark.parametrize("name", NETWORKS)
both_kinds = pytest.mark.parametrize("kind", REPLACERS)


def dense_and_images(name: str, count: int = 4) -> tuple[nn.Module, Tensor]:
    model, size = NETWORKS[name]()
    return trained(model).eval(), torch.randn(count, *size)


@all_networks
@both_kinds
def test_replaced_collapsed_and_optimised_networks_compute_the_same(name: str, kind: str) -> None:
    dense, images = dense_and_images(name)
    model = REPLACERS[kind](init="project").apply(copy.deepcopy(dense))
    assert sum(isinstance(layer, BLUEPRINT_LAYERS) for layer in model.modules()) == 3
    expected = model(images)
    torch.testing.assert_close(bp.collapse(model)(images), expected)
    optimized = bp.optimize_for_inference(model, images, engines="eager")
    torch.testing.assert_close(optimized(images), expected, rtol=1e-3, atol=1e-4)
    if optimized.report.engine != "given":  # which may be as fast, as far as clocks can tell
        assert sum(layer.norms_folded for layer in optimized.report.layers) == 2
    assert bp.apply_plan(dense, {}) is dense


@pytest.mark.slow
@all_networks
@both_kinds
def test_onnx_models_compute_the_same(name: str, kind: str) -> None:
    pytest.importorskip("onnxruntime")
    dense, images = dense_and_images(name)
    model = REPLACERS[kind]().apply(dense)
    optimized = bp.optimize_for_inference(model, images, engines="onnxruntime")
    engines = {engine.engine: engine.why_not for engine in optimized.report.engines}
    assert not engines["onnxruntime"]
    torch.testing.assert_close(optimized(images), model(images), rtol=1e-3, atol=1e-4)


@all_networks
@both_kinds
def test_macs_are_those_of_torch(name: str, kind: str) -> None:
    model, images = dense_and_images(name)
    for each in (model, REPLACERS[kind]().apply(model)):
        with FlopCounterMode(display=False) as counter:
            each(images)
        profile = bp.ModelProfiler(each, tuple(images.shape))
        assert 2 * profile.total_mac_count == counter.get_total_flops()


@all_networks
@pytest.mark.parametrize("choice", ["u", "s", "macs", "parameters"])
def test_projection_finds_the_blueprints_of_a_blueprint_network(name: str, choice: str) -> None:
    """Of which the dense network is made; so nothing needs to be lost."""
    dense, images = dense_and_images(name, count=40)
    kind = choice if choice in REPLACERS else "s"
    dense = bp.collapse(REPLACERS[kind](init="project").apply(dense))
    chosen: dict[str, Any] = {"kind": kind, "p": 0.5} if choice in REPLACERS else {
        "budget": 0.8, "of": choice, "align": 4}  # fmt: skip
    small, report = bp.project_pretrained(dense, images, progress=False, **chosen)
    expected = dense(images)
    assert (small(images) - expected).abs().max() < 0.02 * expected.abs().max()
    assert report.plan
    again = bp.load_projected(dense, (report.plan, small.state_dict()))
    torch.testing.assert_close(again(images), small(images))


@pytest.mark.slow
def test_a_budget_of_time_tells_dimensions_apart() -> None:
    """Costs are measured once for each geometry: a kernel of 9 is not one of 3x3."""
    line = nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 8, 9, padding=4), nn.Unflatten(2, (6, 6)))
    dense = nn.Sequential(line, nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(), nn.Linear(288, 3))
    curve = bp.budget_curve(
        dense, torch.randn(20, 8, 6, 6), (1.0,), kernel_sizes=[3, 9], of="time", progress=False
    )
    assert curve._seen.costs["0.1"] != curve._seen.costs["1"]


def test_shared_blueprints_are_for_images_alone() -> None:
    convs, head = (nn.Conv2d(8, 8, 3), nn.Flatten(2), nn.Conv1d(8, 8, 3)), nn.Linear(112, 3)
    both = nn.Sequential(*convs, nn.Flatten(), head)
    _, report = bp.project_pretrained(both, torch.randn(9, 8, 6, 6), "cp", progress=False)
    assert report.plan == {"0": "cp:8"}
    assert bp.project_pretrained(nn.Conv2d(3, 4, 3), None, "cp")[1].plan == {"": "cp:6"}
    with raises_exactly("kind='cp' needs a Conv2d that BSConv-CP can replace, got none"):
        bp.project_pretrained(network(1), torch.randn(9, 4, 16), "cp", progress=False)


@all_networks
def test_statistics_of_batch_norms_are_estimated_again(name: str) -> None:
    model, images = dense_and_images(name)
    norm = next(m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    seen: list[Tensor] = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    bp.reestimate_batch_norm(model, images)
    rows = seen[-1].transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, rows.mean(1))
    torch.testing.assert_close(norm.running_var, rows.var(1))


@pytest.mark.parametrize("name", ["signals", "images", "volumes"])
def test_single_images_are_not_taken_for_batches(name: str) -> None:
    model, images = dense_and_images(name)
    for function in (bp.reestimate_batch_norm, bp.project_pretrained):
        with pytest.raises(ValueError, match=r"^images needs inputs that the model takes, got \("):
            function(model, images[0])
