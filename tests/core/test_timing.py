"""What is measured and when the clock is read; seconds come from a clock of our own."""

import itertools
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from bsconv.basics.timing import MOST_ROUNDS, in_turns, medians, synchronize
from bsconv.pytorch import BSConvS, BSConvU, _layer_plans
from helpers.clock import Clock

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_contenders_take_turns_and_the_first_round_only_warms_up(clock: Clock) -> None:
    contenders = {"a": clock.takes("a", 9, 1, 3, 2), "b": clock.takes("b", 8, 6, 4, 5)}
    taken = in_turns(contenders, CPU, budget=0.0)
    assert taken == {"a": [1, 3, 2], "b": [6, 4, 5]}
    assert medians(taken) == {"a": 2, "b": 5}
    assert [event for event in clock.events if event in "ab"] == list("ababbaab")
    assert clock.events[:5] == ["cpu", "clock", "a", "cpu", "clock"]


@pytest.mark.parametrize(
    ("budget", "rounds"), [(0.0, 3), (3.9, 3), (4.0, 4), (6.5, 6), (1e9, MOST_ROUNDS)]
)
def test_there_are_as_many_rounds_as_the_budget_holds(clock, budget, rounds):
    in_turns({"a": clock.takes("a", 1)}, CPU, budget=budget)
    assert clock.events.count("a") == 1 + rounds


def test_a_turn_is_as_many_calls_as_it_holds(clock: Clock) -> None:
    contenders = {"short": clock.takes("a", 2.5, 1, 2), "long": clock.takes("b", 5)}
    taken = in_turns(contenders, CPU, rounds=2, turn=3.0)
    assert taken == {"short": [2, 2], "long": [5, 5]}
    assert clock.events.count("a") == 2 + 2 * 3


def test_others_can_measure() -> None:
    figures = iter([9.0, 4.0, 6.0])
    assert in_turns({"a": next}, CPU, rounds=2, seconds_of=lambda _: next(figures)) == {"a": [4, 6]}


def test_only_cuda_devices_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    for device in ("cpu", "cuda:1", "meta"):
        synchronize(torch.device(device))
    assert waited == [torch.device("cuda:1")]


def test_a_plan_is_timed_forward_and_backward(clock: Clock) -> None:
    layer = BSConvU(4, 8, 3)
    layer.pw.weight.requires_grad_(False)
    images = torch.randn(2, 4, 5, 5, requires_grad=True)
    layer.register_forward_pre_hook(lambda layer, _: clock.takes(f"as {layer.plan}", 1)())
    for name, tensor in (("images", images), ("dw", layer.dw.weight), ("bias", layer.dw.bias)):
        tensor.register_hook(lambda _, name=name: clock.takes(name, 2)())
    _layer_plans._step("merged", layer, images)
    assert clock.events[0] == "as merged"
    assert sorted(clock.events[1:]) == ["bias", "dw", "images"]
    clock.events.clear()
    with torch.no_grad():
        _layer_plans._step("factored", layer, images)
    assert clock.events == ["as factored"]


def test_layers_that_differ_are_measured_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    monkeypatch.setattr(_layer_plans, "_fastest", {})
    monkeypatch.setattr(_layer_plans, "_step", lambda plan, *_: measured.append(plan))
    images = torch.randn(2, 4, 8, 8)
    once = 2 * (1 + _layer_plans.REPEATS)

    def run(layer: nn.Module, images: Tensor) -> int:
        layer.plan = "auto"  # type: ignore[assignment]
        layer(images)
        rounds, again = divmod(len(measured), once)
        measured.clear()
        assert again == 0
        return rounds

    assert [run(BSConvU(4, 8, 3), images) for _ in range(2)] == [1, 0]
    for options in ({"stride": 2}, {"bias": False}):
        assert run(BSConvU(4, 8, 3, **options), images) == 1
    assert run(BSConvU(4, 8, 3).eval(), images) == 1
    for other in (images.to(memory_format=torch.channels_last), images[:1]):
        assert run(BSConvU(4, 8, 3), other) == 1
    assert run(BSConvU(4, 8, 3).double(), images.double()) == 1
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            assert run(BSConvU(4, 8, 3), images) == 1
    with torch.no_grad():
        assert [run(BSConvU(4, 8, 3), images) for _ in range(2)] == [1, 0]
    torch.set_num_threads(torch.get_num_threads() + 1)
    assert run(BSConvU(4, 8, 3), images) == 1


def test_the_shortest_of_all_turns_decides(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    work = {"factored": clock.takes("f", 9, 2, 8, 8), "merged": clock.takes("m", 9, 5, 1, 9)}
    given: list[tuple[bool, bool]] = []
    layer = BSConvU(4, 8, 3)

    def step(plan: str, trial: nn.Module, images: Tensor) -> None:
        given.append((trial is layer, images.requires_grad))
        work[plan]()

    monkeypatch.setattr(_layer_plans, "_fastest", {})
    monkeypatch.setattr(_layer_plans, "_step", step)
    with torch.no_grad():
        fastest = _layer_plans.fastest_plan(tuple(work), layer, torch.rand(1, 4, 5, 5))
    assert fastest == "merged"
    assert set(given) == {(False, False)}
    given.clear()
    _layer_plans.fastest_plan(("factored",), layer, torch.rand(2, 4, 5, 5))
    assert set(given) == {(False, True)}


def test_a_single_plan_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_layer_plans, "_fastest", {})
    monkeypatch.setattr(_layer_plans, "_step", Mock(side_effect=AssertionError("measured")))
    layer = BSConvS(4, 8, 1, with_bn=True)
    layer.plan = "auto"
    layer.eval()(torch.randn(1, 4, 1, 1))  # a single pixel: factored
    layer.to("meta")(torch.randn(2, 4, 3, 3, device="meta"))


def test_calls_that_settle_a_turn_come_before_it_and_do_not_count() -> None:
    called: list[str] = []
    works = {name: lambda name=name: called.append(name) for name in ("a", "b")}
    taken = in_turns(works, torch.device("cpu"), rounds=2, settle=0.002)
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 2, "b": 2}
    turns = [name for name, _ in itertools.groupby(called[2:])]
    assert turns == ["a", "b", "a"]  # every other round goes backwards
    assert len(called) > 2 + 4
