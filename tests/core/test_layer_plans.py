"""The plans of BSConv layers: other ways to compute the same function of the same weights."""

import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from bsconv import pytorch as bp
from helpers.clock import Clock
from helpers.exact_errors import raises_exactly
from helpers.model_snapshots import assert_unchanged, snapshot

SIZES = {1: (13,), 2: (13, 12), 3: (9, 10, 11)}
U, S = (bp.BSConvU1d, bp.BSConvU, bp.BSConvU3d), (bp.BSConvS1d, bp.BSConvS, bp.BSConvS3d)
UNTRACKED = {"track_running_stats": False}
CP = functools.partial(bp.BSConvCP, blueprints=3)
PLANS = {
    **dict.fromkeys(U, ("factored", "merged", "auto")),
    **dict.fromkeys(S, ("factored", "joined", "narrow", "merged", "auto")),
    bp.BSConvCP: ("factored", "narrow", "merged", "auto"),
}


@st.composite
def layers(draw: st.DrawFn) -> Any:
    n = draw(st.sampled_from(sorted(SIZES)))
    kernel_size = draw(st.tuples(*[st.integers(1, 5)] * n))
    odd = all(size % 2 for size in kernel_size)
    stride = draw(st.sampled_from([1, 2, (1, 2, 1)[:n]]))
    same = st.just("same") if odd and stride == 1 else st.nothing()
    return draw(st.sampled_from([U[n - 1], S[n - 1]] + [CP] * (n == 2)))(
        draw(st.integers(1, 6)), draw(st.integers(1, 6)), kernel_size, stride,
        draw(st.integers(0, 2) | st.tuples(*[st.integers(0, 2)] * n) | same),
        draw(st.sampled_from([1, 2])), bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(["zeros", "reflect", "circular"])),
        with_bn=draw(st.booleans()), dtype=torch.float64,
    )  # fmt: skip


def results(layer: nn.Module, images: Tensor) -> list[Tensor]:
    """The output, and all gradients of the sum of its squares, that of the input first."""
    images = images.clone().requires_grad_()
    output = layer(images)
    loss = output.square().sum()
    return [output.detach(), *torch.autograd.grad(loss, [images, *layer.parameters()])]


@given(layer=layers(), seed=st.integers(0, 9), training=st.booleans())
@settings(max_examples=60)
def test_all_plans_compute_the_same_outputs_and_gradients(layer, seed, training):
    generator = torch.Generator().manual_seed(seed)
    size = (2, layer.in_channels, *SIZES[len(layer.kernel_size)])
    images = torch.randn(size, dtype=torch.float64, generator=generator)
    expected = results(copy.deepcopy(layer).train(training), images)
    for plan in PLANS[type(layer)]:
        planned = copy.deepcopy(layer).train(training)
        planned.plan = plan
        torch.testing.assert_close(results(planned, images), expected, rtol=1e-9, atol=1e-9)
        assert planned.state_dict().keys() == layer.state_dict().keys()


def convolutions(layer: nn.Module) -> list[tuple[int, ...]]:
    """The shapes of the weights of all convolutions in a forward pass."""
    calls = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.nn.functional.conv2d:
                calls.append(tuple(args[1].shape))
            return function(*args, **(kwargs or {}))

    with Watch():
        layer(torch.randn(2, 8, 5, 5))
    return calls


def test_one_dense_convolution_is_computed_when_merged() -> None:
    layer = bp.BSConvS(8, 12, 3)
    for plan, expected in {
        "merged": [(12, 8, 3, 3)],
        "joined": [(12, 8, 1, 1), (12, 1, 3, 3)],
        "narrow": [(4, 8, 1, 1), (12, 4, 3, 3)],
        "factored": [(4, 8, 1, 1), (12, 4, 1, 1), (12, 1, 3, 3)],
    }.items():
        layer.plan = plan
        assert convolutions(layer) == expected


@pytest.mark.parametrize("frozen", ["", "bn1", "bn2"])
@pytest.mark.parametrize(
    "bn_kwargs",
    [{}, {"momentum": None}, {"momentum": 0.3, "eps": 0.01}, {"affine": False}, UNTRACKED],
)
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_batch_norms_learn_the_same_when_they_are_merged(frozen, bn_kwargs, padding_mode):
    """Their running statistics too, over several steps, and what they do with them afterwards."""
    options = {"padding": 1, "padding_mode": padding_mode, "dtype": torch.float64}
    factored = bp.BSConvS(6, 10, 3, **options, with_bn=True, bn_kwargs=bn_kwargs)
    with torch.no_grad():
        for parameter in factored.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    if frozen:
        for name, buffer in factored.get_submodule(frozen).eval().named_buffers():
            if name != "num_batches_tracked":
                nn.init.uniform_(buffer, 0.5, 2)
    narrow = copy.deepcopy(factored)
    narrow.plan = "narrow"
    for step in range(3):
        images = step + torch.randn(4, 6, 8, 7, dtype=torch.float64)
        found = [results(layer, images) for layer in (narrow, factored)]
        torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(narrow.state_dict(), factored.state_dict(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(narrow.eval()(images), factored.eval()(images))


@pytest.mark.parametrize("difference", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_merged_batch_norms_see_small_differences_of_channels(difference, scale):
    """All channels are nearly the same, and what follows takes only their differences."""
    layer = bp.BSConvS(8, 8, 3, padding=1, p=0.5, with_bn=True)
    with torch.no_grad():
        rows = layer.pw1.weight
        rows.copy_(rows[:1] + difference * torch.randn_like(rows))
        layer.pw2.weight.sub_(layer.pw2.weight.mean(1, keepdim=True))
    images = scale * torch.randn(4, 8, 6, 6)
    expected = copy.deepcopy(layer).double()(images.double())
    layer.plan = "narrow"
    assert (layer(images) - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize(
    ("deviation", "training"), [(1.0, True), (1e-2, True), (0.0, True), (1.0, False), (1e-2, False)]
)
def test_merged_batch_norms_magnify_no_rounding_of_large_means(deviation, training):
    """What they make of a mean of 100 cancels; were it in the outputs, digits would be lost."""
    layer = bp.BSConvS(8, 8, 3, padding=1, p=0.5, with_bn=True, bn_kwargs={"momentum": 1.0})
    images = 100 + deviation * torch.randn(4, 8, 6, 6)
    layer(images)  # the running statistics become those of the images
    expected = copy.deepcopy(layer).double().train(training)(images.double())
    layer.train(training).plan = "narrow"
    # magnified is the rounding of the first convolution alone
    rounding = 1e-5 / max(deviation, 1e-2)
    assert (layer(images) - expected).norm() <= rounding * expected.norm()


def test_narrow_with_batch_norms_is_one_dense_convolution() -> None:
    layer = bp.BSConvS(8, 12, 3, padding=1, with_bn=True)
    layer.plan = "narrow"
    shapes = [(4, 8, 1, 1), (12, 4, 3, 3), (12, 1, 3, 3)]  # the last for one flat image
    assert convolutions(layer) == shapes
    layer.bn2.register_forward_hook(lambda *_: None)
    assert convolutions(layer) == [(4, 8, 1, 1), (12, 4, 1, 1), (12, 1, 3, 3)]
    layer.bn2._forward_hooks.clear()
    layer.bn1.bias = None
    assert convolutions(layer) == shapes
    assert layer.to("meta")(torch.empty(2, 8, 5, 5, device="meta")).shape == (2, 12, 5, 5)


@pytest.mark.slow
def test_compiled_batch_norms_learn_the_same() -> None:
    factored = bp.BSConvS(6, 10, 3, padding=1, with_bn=True)
    narrow = copy.deepcopy(factored)
    narrow.plan = "narrow"
    images = torch.randn(4, 6, 8, 8)
    found = results(torch.compile(narrow, fullgraph=True), images)
    torch.testing.assert_close(found, results(factored, images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(narrow.state_dict(), factored.state_dict())


def test_layers_that_the_published_package_pickled_compute() -> None:
    layer, images = bp.BSConvS(4, 8, 3), torch.randn(2, 4, 8, 8)
    expected = layer(images)
    for name in ("_plan", "_measured_plan", "_needs_batch"):  # which it did not have
        delattr(layer, name)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(images), expected)


def test_batch_norm_of_a_single_pixel_is_refused_as_ever() -> None:
    layer = bp.BSConvS(8, 12, 1, with_bn=True)
    layer.plan = "narrow"
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        layer(torch.randn(1, 8, 1, 1))


def test_auto_takes_the_fastest_and_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seconds = Clock(monkeypatch), {"factored": 3, "joined": 1, "narrow": 2, "merged": 2}
    work = {plan: clock.takes(plan, each) for plan, each in seconds.items()}
    monkeypatch.setattr(bp._layer_plans, "_fastest", {})
    monkeypatch.setattr(bp._layer_plans, "_step", lambda plan, *_: work[plan]())
    layer = bp.BSConvS(8, 12, 3)
    layer.plan = "auto"
    assert [convolutions(layer) for _ in range(2)] == [[(12, 8, 1, 1), (12, 1, 3, 3)]] * 2
    assert {clock.events.count(plan) for plan in seconds} == {1 + bp._layer_plans.REPEATS}


def test_compilation_takes_the_plan_that_ran_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bp._layer_plans, "_fastest", {})
    clock = Clock(monkeypatch)
    work = {"factored": clock.takes("factored", 2), "merged": clock.takes("merged", 1)}
    monkeypatch.setattr(bp._layer_plans, "_step", lambda plan, *_: work[plan]())
    layer = bp.BSConvU(4, 8, 3)
    layer.plan = "auto"
    images = torch.randn(1, 4, 8, 8)
    graphs: list[str] = []

    def look(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        graphs.append(graph.code)
        return graph

    torch.compile(layer, backend=look, fullgraph=True)(images)
    layer(images)
    torch.compile(layer, backend=look, fullgraph=True)(images)
    assert [code.count("conv2d(") for code in graphs] == [2, 1]


def test_measuring_leaves_no_trace() -> None:
    layer = bp.BSConvU(4, 8, 3)
    layer.plan = "auto"
    before, state = snapshot(layer), torch.get_rng_state()
    layer(torch.ones(2, 4, 8, 8))
    layer._measured_plan = "factored"  # whichever was the fastest
    assert_unchanged(layer, before)
    assert torch.equal(torch.get_rng_state(), state)


class Doubled(nn.Conv2d):
    def forward(self, images: Tensor) -> Tensor:
        return 2 * super().forward(images)


def twice(call: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda images: 2 * call(images)


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (U[1], lambda layer: layer.dw.register_forward_hook(lambda _, __, output: 2 * output)),
        (U[1], lambda layer: setattr(layer.pw, "__class__", Doubled)),
        (U[1], lambda layer: setattr(layer.dw, "forward", twice(layer.dw.forward))),
        (S[1], lambda layer: setattr(layer.dw, "forward", twice(layer.dw.forward))),
    ],
)
def test_what_is_changed_in_a_part_still_runs(make: Any, change: Callable[[Any], None]) -> None:
    layer, images = make(4, 8, 3, bias=False, with_bn=make is bp.BSConvS), torch.randn(2, 4, 8, 8)
    expected = 2 * layer(images)
    change(layer)
    layer.plan = "narrow" if make is bp.BSConvS else "merged"
    torch.testing.assert_close(layer(images), expected)


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["merged", "auto"])
def test_plans_survive_copies_autocast_tracing_and_compilation(plan: str) -> None:
    layer = bp.BSConvU(4, 8, 3, padding=1).eval()
    images = torch.randn(2, 4, 8, 8)
    expected = layer(images).detach()
    layer.plan = plan
    assert copy.deepcopy(layer).plan == pickle.loads(pickle.dumps(layer)).plan == plan
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(images), expected)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = layer(images)
    assert coarse.dtype == torch.bfloat16
    torch.testing.assert_close(coarse.float(), expected, rtol=0.05, atol=0.05)
    assert layer.to("meta")(images.to("meta")).shape == expected.shape


@pytest.mark.parametrize("layer", [bp.BSConvU(4, 8, 3), bp.BSConvS(4, 8, 3), CP(4, 8, 3)])
@pytest.mark.parametrize("plan", ["fast", "", None])
def test_another_plan_is_refused(layer: Any, plan: Any) -> None:
    known = ", ".join(map(repr, PLANS[type(layer)]))
    rule = f"plan of a {type(layer).__name__} needs to be one of {known}, got {plan!r}"
    with raises_exactly(rule):
        layer.plan = plan
    assert layer.plan == "factored"


@pytest.mark.parametrize("with_bn", [False, True])
@pytest.mark.parametrize("make", [bp.BSConvU, bp.BSConvS, CP])
def test_gradients_agree_with_finite_differences(make: Callable[..., Any], with_bn: bool) -> None:
    layer = make(3, 4, 3, 2, 1, with_bn=with_bn, bn_kwargs=UNTRACKED, dtype=torch.float64)
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)

    def function(images: Tensor, *weights: Tensor) -> Tensor:
        state = dict(zip(dict(layer.named_parameters()), weights, strict=True))
        return functional_call(layer, state, (images,))

    for plan in layer._plans:
        layer.plan = plan
        assert torch.autograd.gradcheck(function, (images, *layer.parameters()))
