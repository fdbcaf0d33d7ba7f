"""From a trained network to the fastest thing that computes the same on the machine at hand."""

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._tools.model_tree import exchange, places, wrapped_by
from .._tools.numerics import full_float32
from .._tools.timing import seconds_in_turns
from ._choice import CHANNELS_LAST, CONTIGUOUS, Choice, blueprint_places, cast_to, choose_forms
from ._folding import fold, foldable_pairs, is_unmodified
from ._model import Network, OptimizedModel, compiled_for
from ._report import InferenceReport, OptimizedLayer

__all__ = [
    "InferenceReport",
    "OptimizedLayer",
    "OptimizedModel",
    "collapse",
    "optimize_for_inference",
]

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
MODEL_BUDGET = 0.5  # seconds of measuring for each way to compute the model
SAME = 1e-3  # of the largest output: more is no rounding
SAME_WHEN_SHORT = 0.1
COMPILED = ("compiled", "compiled factored")  # the names of choose_forms' choices when timed


def optimize_for_inference(
    model: nn.Module,
    example_input: Tensor,
    *,
    dtype: torch.dtype | None = None,
    compile: bool | Literal["auto"] = "auto",
) -> OptimizedModel:
    """A new module that computes what ``model`` computes in eval mode, as fast as it can here.

    BatchNorms that follow a convolution are folded into it, those within BSConv layers too. Each
    BSConv layer takes the form that is the fastest on its input in the example, as measured:
    "factored", its convolutions in turn; "merged", one dense convolution; for BSConv-S also
    "joined", its pointwise ones multiplied, and "narrow", ``pw1``, then one dense convolution.
    Images are brought into the faster memory format, and the whole goes through torch.compile with
    its weights as constants. Other sizes than that of ``example_input`` (B, C, H, W) are computed
    as well, uncompiled. The original stays as it is. ``report`` of the result says what was done.

    Args:
        model: any module of one input tensor, on the device of ``example_input``.
        dtype: computes in float32, bfloat16, float16 or float64, BatchNorms that remain in their
            own precision; inputs and outputs keep theirs. None: that of the model.
        compile: "auto" compiles where that works and turns out faster, True wherever it works.
            Where it does not, for want of a C++ compiler say, the result is uncompiled and the
            report tells what is lost.

    Raises TypeError for other types than these. Raises ValueError for lazy layers, weights on the
    meta device, TorchScript, a model that cannot be copied or does not take ``example_input``, one
    whose outputs differ from call to call in eval mode, which no optimised model could equal, and
    if the result should differ from the original by more than rounding.
    """
    _check_arguments(model, example_input, dtype, compile)
    given = _eval_copy(model)
    own_dtype = _dtype_of(given)
    dtype = dtype or own_dtype
    example = example_input.detach()
    with torch.inference_mode(False), torch.no_grad():  # in this order: the first allows gradients
        own_example = example.to(own_dtype)
        expected = _repeatable_outputs(given, own_example)
        twin = copy.deepcopy(given)
        norms = _fold_norms(twin, own_example)
        choices, channels_last = choose_forms(twin, own_example, dtype, norms)
        differences = [_checked_difference(choice, own_example, expected) for choice in choices]
        candidates = [
            OptimizedModel(
                Network(cast_to(choice.model, dtype, channels_last), dtype, channels_last), example
            )
            for choice in choices
        ]
        lost = [_compile(candidate, example, compile) for candidate in candidates]
        seconds = _time(given, candidates, own_example, example)
    best, is_compiled = _fastest(seconds, candidates, compile)
    optimized = candidates[best]
    if not is_compiled:
        optimized.set_compiled(None)
    optimized.report = InferenceReport(
        choices[best].layers,
        tuple(example.shape),
        _name(dtype),
        CHANNELS_LAST if channels_last else CONTIGUOUS,
        differences[best],
        seconds["given"],
        seconds["eager"],
        seconds.get(COMPILED[best]),
        is_compiled,
        lost[best],
    )
    return optimized


def collapse(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in which each BSConv layer is the one dense convolution that equals it.

    For engines that run dense convolutions best. Layers that equal none stay as they are, and one
    warning names them with the reason: those with a BatchNorm in training mode, or with a BatchNorm
    before a zero-padded depthwise convolution (:meth:`BSConvU.to_conv2d`), those with hooks or
    other modules in them, and subclasses, which may compute something else. Warns as well if there
    is no BSConv layer.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model needs to be a torch.nn.Module, got a {type(model).__name__}")
    twin = copy.deepcopy(model)
    found = blueprint_places(twin)
    dense: dict[int, nn.Module] = {}
    refused: dict[str, str] = {}
    for place in found:
        layer: Any = place.module
        if id(layer) in dense:
            continue
        try:
            if not is_unmodified(layer):
                raise ValueError(
                    "it is a subclass, or holds hooks or other modules than plain convolutions"
                )
            dense[id(layer)] = layer.to_conv2d()
        except ValueError as error:
            refused[place.name or "(root)"] = str(error)
    if refused or not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        line = f"layers that stay as they are: {reasons}" if found else "there is no BSConv layer"
        warnings.warn(line, stacklevel=2)
    return exchange(twin, [place for place in found if id(place.module) in dense], dense)


def _check_arguments(model: Any, example: Any, dtype: Any, compile: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model needs to be a torch.nn.Module, got a {type(model).__name__}")
    if not isinstance(example, Tensor):
        raise TypeError(f"example_input needs to be a tensor, got a {type(example).__name__}")
    if not example.is_floating_point():
        raise ValueError(f"example_input needs floating-point numbers, got {example.dtype}")
    if dtype not in (None, *DTYPES):
        known = ", ".join(map(_name, DTYPES))
        raise ValueError(f"dtype needs to be None or one of {known}, got {dtype!r}")
    if compile not in (True, False, "auto"):
        raise ValueError(f"compile needs to be True, False or 'auto', got {compile!r}")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ValueError("model needs to be optimised before it becomes TorchScript")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(tensor):
            raise ValueError(f"model needs a size for {name}: call it once, its layers are lazy")
        if tensor.is_meta:
            raise ValueError(f"model needs values for {name}, which is on the meta device")


def _eval_copy(model: nn.Module) -> nn.Module:
    while inner := wrapped_by(model):
        model = inner
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        raise ValueError(f"model cannot be copied: {_line(error)}") from error
    return twin.eval().requires_grad_(False)


@full_float32()
def _repeatable_outputs(model: nn.Module, example: Tensor) -> list[Tensor]:
    try:
        first = _outputs(model(example))
    except Exception as error:
        size = tuple(example.shape)
        raise ValueError(f"model does not take example_input of {size}: {_line(error)}") from error
    if not first:
        raise ValueError("model returns no floating-point tensor")
    if not _difference(_outputs(model(example)), first) <= SAME:
        raise ValueError(
            "model is random in eval mode, or its outputs are not finite: two calls with "
            "example_input differ, so nothing can be said to equal it"
        )
    return first


def _fold_norms(model: nn.Module, example: Tensor) -> dict[int, int]:
    """How many BatchNorms went into each layer, by its id; in place of each is an Identity."""
    pairs = foldable_pairs(model, lambda: model(example))
    for pair in pairs:
        fold(pair)
    gone = {id(pair.norm): nn.Identity().eval() for pair in pairs}
    exchange(model, [place for place in places(model, ()) if id(place.module) in gone], gone)
    return {id(pair.conv): 1 for pair in pairs}


@full_float32()
def _checked_difference(choice: Choice, example: Tensor, expected: list[Tensor]) -> float:
    difference = _difference(_outputs(choice.model(example)), expected)
    if not difference <= SAME:
        raise ValueError(
            f"model cannot be optimised: the result differs from it by {difference:.1e} of its "
            "largest output, which is more than rounding"
        )
    return difference


def _compile(candidate: OptimizedModel, example: Tensor, compile: bool | Literal["auto"]) -> str:
    """Compiles, if it works; what is lost otherwise."""
    if compile is False:
        return ""
    lost = "not compiled, which costs speed: "
    try:
        compiled = compiled_for(candidate.network, example)
    except Exception as error:  # of the many that compilers raise
        return lost + _line(error)
    expected = _outputs(candidate.network(example))
    difference = _difference(_outputs(compiled(example)), expected)
    if not difference <= (SAME_WHEN_SHORT if _is_short(candidate, example, expected) else SAME):
        return f"{lost}compiled, it differed by {difference:.1e} of its largest output"
    candidate.set_compiled(compiled)
    return ""


def _is_short(candidate: OptimizedModel, example: Tensor, outputs: list[Tensor]) -> bool:
    """Whether it computes in fewer bits than float32 has, as float32 itself is under TF32."""
    if candidate.network.dtype in (torch.bfloat16, torch.float16):
        return True
    with full_float32():
        return _difference(outputs, _outputs(candidate.network(example))) > SAME / 10


def _time(
    given: nn.Module, candidates: list[OptimizedModel], own_example: Tensor, example: Tensor
) -> dict[str, float]:
    contenders: dict[str, Callable[[], object]] = {
        "given": partial(given, own_example),
        "eager": partial(candidates[0].network, example),
    }
    for name, candidate in zip(COMPILED, candidates, strict=False):
        if candidate.compiles:
            contenders[name] = partial(candidate, example)
    return seconds_in_turns(contenders, example.device, MODEL_BUDGET * len(contenders))


def _fastest(
    seconds: dict[str, float], candidates: list[OptimizedModel], compile: bool | Literal["auto"]
) -> tuple[int, bool]:
    """Which candidate, and whether compiled."""
    compiled = {
        number: seconds[COMPILED[number]]
        for number, candidate in enumerate(candidates)
        if candidate.compiles
    }
    if not compiled:
        return 0, False
    best = min(compiled, key=compiled.__getitem__)
    if compile == "auto" and seconds["eager"] < compiled[best]:
        return 0, False
    return best, True


def _dtype_of(model: nn.Module) -> torch.dtype:
    tensors = (t.dtype for t in (*model.parameters(), *model.buffers()) if t.is_floating_point())
    return next(tensors, torch.get_default_dtype())


def _outputs(output: Any) -> list[Tensor]:
    """All floating-point tensors of what a model returned."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return [tensor for part in output for tensor in _outputs(part)]
    return []


def _difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest, relative to the largest number of that tensor; NaN for what is not finite."""
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        gap = (one.double() - other.double()).abs().max()
        largest = other.double().abs().max()
        if not gap <= 0:  # NaN too
            worst = max((gap / largest).item(), worst)
    return worst


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
