"""From a trained network to the fastest thing that computes the same on the machine at hand."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ...basics.errors import described
from ...basics.timing import SETTLE, in_turns, medians
from ...engines import ENGINES, Network, Runner, Setting, difference, dtype_name, dtype_of
from .._tools.model_tree import unwrapped
from .._tools.outside import apart_from, independent_copy
from . import _checks
from ._choice import Layers, faster_setting
from ._model import OptimizedModel
from ._report import GIVEN, EngineResult, InferenceReport, OptimizedLayer

MODEL_BUDGET = 0.5  # seconds of measuring for each engine that is among the fastest
CLOSE = 1.3  # times as slow as the fastest in a first measurement: measured again, and longer
TURN = 0.002  # seconds: a single call of a small model is over before the clock can tell
EAGER = "eager"
EVEN = 1.02  # times as slow as the model as it was given: no slower, as far as clocks can tell


@dataclass
class Candidate:
    """A model in an engine, or why it is not there; ``difference`` is that from the model given."""

    engine: str
    layers: tuple[OptimizedLayer, ...] = ()
    difference: float = 0.0
    runner: Runner | None = None
    seconds: float = math.inf  # unless measured
    setup_seconds: float = 0.0
    why_not: str = ""
    handicap: float = 1.0  # a factor of the seconds when it is compared with others


def optimize_for_inference(
    model: nn.Module,
    example_input: Tensor,
    *,
    dtype: torch.dtype | None = None,
    compile: bool | Literal["auto"] = "auto",
    engines: str | Sequence[str] = "auto",
) -> OptimizedModel:
    """A new module that computes what ``model`` computes in eval mode, as fast as it can here.

    BatchNorms that follow a convolution are folded into it, those within BSConv layers too. Then it
    is set up in each engine: "eager" PyTorch, in the faster memory format; "compiled" by
    torch.compile; "onnxruntime" and "openvino", where these packages are installed. In each, BSConv
    layers take the plan that is the fastest there on their input in the example: "factored", their
    convolutions in turn; "merged", one dense convolution; for BSConv-S and BSConv-CP also "joined",
    the first two multiplied, and "narrow", the last two; "padded" has channels of zeros up to a
    multiple of 8 or 16. The fastest of all and of the model as given, in turns on the example, is
    returned; its ``report`` says what was done. It takes inputs of other sizes as well. The
    original stays as it is.

    Args:
        model: any module of one input tensor, on the device of ``example_input``.
        dtype: computes in float32, bfloat16, float16 or float64, BatchNorms that remain in their
            own precision; inputs and outputs keep theirs. None: that of the model. With another
            one, the model as it was given is not among those to choose from.
        engines: "auto" for all that are installed, or the names of some. The report says why one
            that cannot take the model is left out.
        compile: False is short for ``engines="eager"``, True for ``engines="compiled"``.

    Raises TypeError for other types than these. Raises ValueError for engines that are unknown or
    not installed, lazy layers, weights on the meta device, TorchScript, a model that has no
    independent copy, does not take ``example_input``, does not compute in ``dtype`` or is random in
    eval mode, and if the result should differ from the original by more than rounding.

    >>> images = torch.rand(1, 16, 8, 8)
    >>> optimize_for_inference(BSConvU(16, 32, 3), images, engines="eager")(images).shape
    torch.Size([1, 32, 6, 6])
    """
    _checks.check_arguments(model, example_input, dtype)
    names = _checks.selected_engines(engines, compile)
    with torch.inference_mode(False), torch.no_grad():  # in this order: the first allows gradients
        given = independent_copy(unwrapped(model)).eval().requires_grad_(False)
        example = example_input.detach().clone()
        own = dtype_of(given)
        own_example = example.to(own)
        with apart_from(model):
            expected = _checks.repeatable_outputs(given, own_example)
        layers = Layers(given, own_example)
        setting = faster_setting(layers.model(), own_example, dtype or own)
        handicap = EVEN if setting.dtype == own else math.inf
        candidates = [Candidate(GIVEN, runner=Network(given, Setting(own)), handicap=handicap)]
        for name in dict.fromkeys((EAGER, *names)):
            candidates += _set_up(name, layers, example, expected, setting)
        _race(candidates, example)
        return _result(candidates, names, example, setting)


def _set_up(
    name: str, layers: Layers, example: Tensor, expected: list[Tensor], setting: Setting
) -> list[Candidate]:
    """What there is to measure in an engine: one candidate, or two where it cannot tell layers."""
    engine = ENGINES[name]
    if why_not := engine.why_not(example.device, setting.dtype):
        return [Candidate(name, why_not=why_not)]
    start = time.perf_counter()
    try:
        choices = layers.choices(engine, setting)
    except Exception as error:  # of the many that engines raise
        return [Candidate(name, why_not=described(error))]
    found: list[Candidate] = []
    for model, rows in choices:
        apart = _checks.checked_difference(model, layers.example, expected)
        candidate = Candidate(name, rows, apart)
        try:
            candidate.runner = engine.build(model, example.clone(), setting)
            network: Any = ENGINES[EAGER].build(model, example, setting)
            outputs = _checks.outputs_of(candidate.runner, example)
            apart = difference(outputs, _checks.outputs_of(network, example))
            if not _checks.is_rounding(apart, network, example, setting.dtype):
                candidate.why_not = f"its outputs differed by {apart:.1e} of the largest"
            if setting.dtype == layers.example.dtype:
                candidate.difference = difference(outputs, expected)
        except Exception as error:
            candidate.why_not = described(error)
        now = time.perf_counter()
        candidate.setup_seconds, start = now - start, now
        found.append(candidate)
    return found


def _race(candidates: list[Candidate], example: Tensor) -> None:
    """Measures all a few times, then those that are close to the fastest for longer."""
    usable = [one for one in candidates if one.runner is not None and not one.why_not]
    running = {(one.engine, number): one for number, one in enumerate(usable)}
    given = cast(Network, candidates[0].runner)
    modules = {key: OptimizedModel(given, one.runner, example) for key, one in running.items()}
    calls = {key: partial(module, example.clone()) for key, module in modules.items()}
    calls[GIVEN, 0] = partial(given.model, example.to(given.dtype, copy=True))  # without one
    measured = partial(in_turns, device=example.device, turn=TURN, settle=SETTLE)
    seconds = medians(measured(calls, rounds=3))
    close = {k: call for k, call in calls.items() if seconds[k] <= CLOSE * min(seconds.values())}
    if len(close) > 1:
        budget = MODEL_BUDGET * len(close)
        seconds |= medians(measured(close, budget=budget))
    for key, candidate in running.items():
        candidate.seconds = seconds[key]


def _result(
    tried: list[Candidate], names: list[str], example: Tensor, setting: Setting
) -> OptimizedModel:
    if _best(tried, names).seconds == math.inf:
        names = [EAGER]
    best, in_pytorch = _best(tried, [GIVEN, *names]), _best(tried, [GIVEN, EAGER])
    if best.seconds * best.handicap == math.inf:
        why = f"got {setting.dtype}: {_best(tried, [EAGER]).why_not}"
        raise ValueError(f"dtype needs to be one that the model computes in, {why}")
    network = cast(Network, in_pytorch.runner)
    if in_pytorch.engine == EAGER:
        network = getattr(best.runner, "network", network)  # the very layers that are compiled
    optimized = OptimizedModel(network, best.runner, example)
    optimized.report = InferenceReport(
        best.layers,
        tuple(_engine_result(name, tried) for name in dict.fromkeys(one.engine for one in tried)),
        best.engine,
        tuple(example.shape),
        dtype_name(setting.dtype),
        "channels_last" if setting.channels_last and best.engine != GIVEN else "contiguous",
        best.difference,
    )
    return optimized


def _best(candidates: list[Candidate], engines: Sequence[str]) -> Candidate:
    """The fastest in these engines; one that was not measured only where none was."""
    found = (one for one in candidates if one.engine in engines)
    return min(found, key=lambda one: one.seconds * one.handicap)


def _engine_result(name: str, candidates: list[Candidate]) -> EngineResult:
    best = _best(candidates, [name])
    spent = sum(one.setup_seconds for one in candidates if one.engine == name)
    seconds = best.seconds if best.seconds < math.inf else None
    return EngineResult(name, seconds, spent, best.why_not)
