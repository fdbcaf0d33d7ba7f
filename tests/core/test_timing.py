"""What is measured and when the clock is read; seconds come from a clock of our own."""

import itertools
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from bsconv.pytorch import BSConvS, BSConvU
from bsconv.pytorch import _layer_plans as _execution
from bsconv.pytorch._tools import timing as _stopwatch
from bsconv.pytorch._tools.timing import MOST_ROUNDS, in_turns, medians, synchronize
from helpers.exact_errors import raises_exactly

CPU = torch.device("cpu")


class Clock:
    """Stands still but when told; notes in ``events`` when it is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: object) -> None:
        self.now = 100.0
        self.events: list[str] = []
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=self.read))
        monkeypatch.setattr(module, "synchronize", lambda device: self.events.append(str(device)))

    def read(self) -> float:
        self.events.append("clock")
        return self.now

    def takes(self, name: str, *seconds: float) -> Callable[[], None]:
        """Work that takes so many seconds, call by call, and the last of them from then on."""
        left = itertools.chain(seconds, itertools.repeat(seconds[-1]))

        def work() -> None:
            self.events.append(name)
            self.now += next(left)

        return work


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, _stopwatch)


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
def test_there_are_as_many_rounds_as_the_budget_holds(
    clock: Clock, budget: float, rounds: int
) -> None:
    heard: list[tuple[int, int]] = []
    work = {"a": clock.takes("a", 1)}
    in_turns(work, CPU, budget=budget, after_round=lambda *shares: heard.append(shares))
    assert clock.events.count("a") == 1 + rounds
    assert heard[-1] == (rounds, rounds)


def test_a_turn_is_as_many_calls_as_it_holds(clock: Clock) -> None:
    contenders = {"short": clock.takes("a", 2.5, 1, 2), "long": clock.takes("b", 5)}
    taken = in_turns(contenders, CPU, rounds=2, turn=3.0)
    assert taken == {"short": [2, 2], "long": [5, 5]}
    assert clock.events.count("a") == 2 + 2 * 3


def test_others_can_measure() -> None:
    figures = iter([9.0, 4.0, 6.0])
    assert in_turns({"a": next}, CPU, rounds=2, seconds_of=lambda _: next(figures)) == {"a": [4, 6]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "in_turns needs rounds or a budget, got neither"),
        ({"rounds": 0}, "rounds needs to be at least 1, got 0"),
    ],
)
def test_rounds_out_of_range(options: dict[str, int], message: str) -> None:
    with raises_exactly(message):
        in_turns({"a": int}, CPU, **options)


def test_only_cuda_devices_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    for device in ("cpu", "cuda:1", "meta"):
        synchronize(torch.device(device))
    assert waited == [torch.device("cuda:1")]


def test_a_plan_is_timed_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, _execution)
    layer = BSConvU(4, 8, 3)
    layer.pw.weight.requires_grad_(False)
    images = torch.randn(2, 4, 5, 5, requires_grad=True)
    layer.register_forward_pre_hook(lambda layer, _: clock.takes(f"as {layer.plan}", 1)())
    for name, tensor in (("images", images), ("dw", layer.dw.weight), ("bias", layer.dw.bias)):
        tensor.register_hook(lambda _, name=name: clock.takes(name, 2)())
    assert _execution._seconds("merged", layer, images) == 7.0
    events = clock.events
    assert events[:3] == ["cpu", "clock", "as merged"]
    assert (sorted(events[3:6]), events[6:]) == (["bias", "dw", "images"], ["cpu", "clock"])
    clock.events.clear()
    with torch.no_grad():
        assert _execution._seconds("factored", layer, images) == 1.0
    assert clock.events == ["cpu", "clock", "as factored", "cpu", "clock"]


def test_layers_that_differ_are_measured_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    monkeypatch.setattr(_execution, "_fastest", {})
    monkeypatch.setattr(_execution, "_seconds", lambda plan, *_: measured.append(plan) or 1.0)
    images = torch.randn(2, 4, 8, 8)
    once = 2 * (1 + _execution.REPEATS)

    def run(layer: nn.Module, images: Tensor) -> int:
        layer.plan = "auto"  # type: ignore[assignment]
        layer(images)
        rounds, again = divmod(len(measured), once)
        measured.clear()
        assert again == 0
        return rounds

    assert run(BSConvU(4, 8, 3), images) == 1
    assert run(BSConvU(4, 8, 3), images) == 0
    assert run(BSConvU(4, 8, 3, stride=2), images) == 1
    assert run(BSConvU(4, 8, 3, bias=False), images) == 1
    assert run(BSConvU(4, 8, 3).eval(), images) == 1
    assert run(BSConvU(4, 8, 3), images.to(memory_format=torch.channels_last)) == 1
    assert run(BSConvU(4, 8, 3), images[:1]) == 1
    assert run(BSConvU(4, 8, 3).double(), images.double()) == 1
    with torch.autocast("cpu", torch.bfloat16):
        assert run(BSConvU(4, 8, 3), images) == 1
    with torch.autocast("cpu", torch.float16):
        assert run(BSConvU(4, 8, 3), images) == 1
    with torch.no_grad():
        assert run(BSConvU(4, 8, 3), images) == 1
        assert run(BSConvU(4, 8, 3), images) == 0
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert run(BSConvU(4, 8, 3), images) == 1
    finally:
        torch.set_num_threads(threads)


def test_the_shortest_of_all_turns_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"factored": iter([9.0, 2.0, 8.0, 8.0]), "merged": iter([9.0, 5.0, 1.0, 9.0])}
    monkeypatch.setattr(_execution, "_fastest", {})
    monkeypatch.setattr(_execution, "_seconds", lambda plan, *_: next(seconds[plan]))
    given: list[tuple[bool, bool]] = []
    layer = BSConvU(4, 8, 3)
    assert (
        _execution.fastest_plan(("factored", "merged"), layer, torch.rand(1, 4, 5, 5)) == "merged"
    )

    def note(plan: str, trial: nn.Module, images: Tensor) -> float:
        given.append((trial is layer, images.requires_grad))
        return 1.0

    monkeypatch.setattr(_execution, "_seconds", note)
    with torch.no_grad():
        _execution.fastest_plan(("factored",), layer, torch.rand(1, 4, 5, 5))
    _execution.fastest_plan(("factored",), layer, torch.rand(2, 4, 5, 5))
    assert set(given[:4]) == {(False, False)}
    assert set(given[4:]) == {(False, True)}


def test_what_is_traced_or_has_no_numbers_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Subclass(Tensor):
        pass

    class Watching(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            found.append(_execution.takes_time(images))
            return images + 1

    images, found = torch.ones(2), []  # type: tuple[Tensor, list[bool]]
    assert _execution.takes_time(images)
    assert _execution.takes_time(nn.Parameter(images))
    assert not _execution.takes_time(images.to("meta"))
    assert not _execution.takes_time(images.as_subclass(Subclass))
    with pytest.warns((FutureWarning, DeprecationWarning)):
        torch.jit.trace(Watching(), images, check_trace=False)
    assert found == [False]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not _execution.takes_time(images)


def test_a_single_plan_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(*_: object) -> float:
        raise AssertionError("measured")

    monkeypatch.setattr(_execution, "_fastest", {})
    monkeypatch.setattr(_execution, "_seconds", seconds)
    layer = BSConvS(4, 8, 1, with_bn=True)
    layer.plan = "auto"
    layer.eval()(torch.randn(1, 4, 1, 1))  # a single pixel: factored
    layer.to("meta")(torch.randn(2, 4, 3, 3, device="meta"))
