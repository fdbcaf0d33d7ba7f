"""What a run computes with where it leaves that open."""

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from bsconv.experiments.config import TrainConfig
from bsconv.experiments.training import _steps
from bsconv.experiments.training._steps import Execution, choose_execution
from bsconv.pytorch import BSConvS, BSConvU, _layer_plans
from helpers.model_snapshots import assert_unchanged, snapshot


def net() -> nn.Module:
    layers = BSConvU(3, 4, 3, padding=1), nn.ReLU(), BSConvU(4, 6, 3, padding=1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def chosen(model: nn.Module | None = None, images: int = 16, **settings: Any) -> Execution:
    config = TrainConfig(epochs=1, batch_size=8, **settings)
    return choose_execution(model or net(), torch.rand(images, 3, 8, 8), config)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_steps, "WORTH_MEASURING", 16)
    monkeypatch.setattr(_steps, "WORTH_COMPILING", 16)
    monkeypatch.setattr(_steps, "can_compile", lambda device: True)
    monkeypatch.setattr(Execution, "compiled", lambda self, model, device: model)


def seconds_are(monkeypatch: pytest.MonkeyPatch, seconds_of: Callable[[Execution], float]) -> None:
    """The stopwatch finds these seconds for one step of an execution."""

    def in_turns(steps: dict[int, Any], device: Any, rounds: int) -> dict[int, list[float]]:
        for step in steps.values():
            step()
        return {number: [seconds_of(step.args[-1])] * rounds for number, step in steps.items()}

    monkeypatch.setattr(_steps, "in_turns", in_turns)


def test_a_short_run_is_computed_plainly() -> None:
    assert chosen() == Execution("float32", False, {"0": "factored", "2": "factored"})


def test_a_long_run_takes_what_is_faster(long: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds_are(monkeypatch, lambda trial: float(trial.precision == "float32"))
    assert chosen().precision == "bfloat16"
    seconds_are(monkeypatch, lambda trial: float(trial.precision == "bfloat16"))
    assert chosen().precision == "float32"
    assert chosen().compile
    assert not chosen(images=15).compile


def test_plans_are_those_of_the_chosen_precision(long: None, monkeypatch) -> None:
    def fastest(plans: Any, images: Tensor, *_: object) -> str:
        return "merged" if torch.is_autocast_enabled("cpu") else "factored"

    monkeypatch.setattr(_layer_plans, "fastest_plan", fastest)
    for precision, plan in (("bfloat16", "merged"), ("float32", "factored")):
        assert chosen(precision=precision, compile=False).plans == {"0": plan, "2": plan}


@pytest.mark.parametrize("faster", ["factored", "merged"])
def test_compiled_steps_are_compared_with_all_layers_merged(long, monkeypatch, faster: str) -> None:
    seconds_are(monkeypatch, lambda trial: 1.0 + ({*trial.plans.values()} != {faster}))
    monkeypatch.setattr(_layer_plans, "fastest_plan", lambda *_: "factored")
    found = chosen()
    assert found.plans == {"0": faster, "2": faster}
    assert found.compile


def test_bsconv_s_is_compared_as_narrow(long: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(BSConvS(3, 4, 3, with_bn=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    seconds_are(monkeypatch, lambda trial: float("factored" in trial.plans["0"]))
    monkeypatch.setattr(_layer_plans, "fastest_plan", lambda *_: "factored")
    assert chosen(model).plans == {"0": "narrow"}


def test_what_a_run_sets_is_taken(long: None) -> None:
    found = chosen(precision="float32", compile=False, plan="merged")
    assert found == Execution("float32", False, {"0": "merged", "2": "merged"})


def test_steps_measured_for_real_end_in_a_choice_and_leave_no_trace(long, monkeypatch) -> None:
    monkeypatch.setattr(_layer_plans, "_fastest", {})
    model = nn.Sequential(net(), nn.BatchNorm1d(6), nn.Dropout(0.5))
    before, images, state = snapshot(model), torch.rand(16, 3, 8, 8), torch.get_rng_state()
    found = choose_execution(model, images, TrainConfig(epochs=1, batch_size=8))
    assert torch.equal(torch.get_rng_state(), state)
    assert_unchanged(model, before)
    assert found.precision in ("float32", "bfloat16")
    assert set(found.plans.values()) <= {"factored", "merged"}


def test_without_a_compiler_steps_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", Mock(side_effect=RuntimeError("no C++ compiler")))
    assert not _steps.can_compile.__wrapped__("cpu")


def test_plans_of_another_model_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit the model: '1' is not a BSConv layer in it"):
        Execution("float32", False, {"1": "merged"}).set_plans(net())


def test_the_choice_is_a_line() -> None:
    made = Execution("bfloat16", True, {"0": "merged", "2": "factored"})
    assert str(made) == "bfloat16, compiled, 1 of 2 BSConv layers merged"
