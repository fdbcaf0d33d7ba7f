"""From a trained network to the fastest thing that computes the same on the machine at hand."""

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ._execution import is_plain
from ._folding import BLUEPRINT_LAYERS, fold, foldable_pairs
from ._forms import forms
from ._inference_report import InferenceReport, OptimizedLayer
from ._optimized import Network, OptimizedModel, compiled_for
from ._stopwatch import seconds_in_turns
from ._surgery import Place, exchange, places, wrapped_by

__all__ = [
    "InferenceReport",
    "OptimizedLayer",
    "OptimizedModel",
    "collapse",
    "optimize_for_inference",
]

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
LAYER_BUDGET = 0.1  # seconds of measuring for each kind of layer
MODEL_BUDGET = 2.0
SAME = 1e-3  # of the largest output: more is no rounding
SAME_WHEN_SHORT = 0.1
CONTIGUOUS, CHANNELS_LAST = "contiguous", "channels_last"
FORMATS = {False: torch.contiguous_format, True: torch.channels_last}


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
    with torch.no_grad(), torch.inference_mode(False):
        expected = _repeatable_outputs(given, example.to(own_dtype))
        twin = copy.deepcopy(given)
        norms = _fold_norms(twin, example.to(own_dtype))
        twin, layers, channels_last = _take_forms(twin, example.to(own_dtype), dtype, norms)
        difference = _difference(_outputs(twin(example.to(own_dtype))), expected)
        if not difference <= SAME:
            raise ValueError(
                "model cannot be optimised: the result differs from it by "
                f"{difference:.1e} of its largest output, which is more than rounding"
            )
        network = Network(_cast(twin, dtype, channels_last), dtype, channels_last)
        optimized = OptimizedModel(network, example)
        lost = _compile(optimized, example, compile)
        seconds = _time(given, optimized, example.to(own_dtype), example)
        eager, compiled = seconds["eager"], seconds.get("compiled")
        if compile == "auto" and compiled is not None and compiled > eager:
            optimized.set_compiled(None)
        optimized.report = InferenceReport(
            layers,
            tuple(example.shape),
            _name(dtype),
            CHANNELS_LAST if channels_last else CONTIGUOUS,
            difference,
            seconds["given"],
            eager,
            compiled,
            optimized.compiles,
            lost,
        )
    return optimized


def collapse(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in which each BSConv layer is the one dense convolution that equals it.

    For engines that run dense convolutions best. Layers that equal none stay as they are, and one
    warning names them with the reason: those with a BatchNorm in training mode, or with a BatchNorm
    before a zero-padded depthwise convolution (:meth:`BSConvU.to_conv2d`), and those with hooks or
    other modules in them. Warns as well if there is no BSConv layer.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model needs to be a torch.nn.Module, got a {type(model).__name__}")
    twin = copy.deepcopy(model)
    found = _blueprint_places(twin)
    dense: dict[int, nn.Module] = {}
    refused: dict[str, str] = {}
    for place in found:
        layer: Any = place.module
        if id(layer) in dense:
            continue
        try:
            if not all(map(is_plain, layer)):
                raise ValueError("it holds hooks or other modules than plain convolutions")
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


def _take_forms(
    model: nn.Module, example: Tensor, dtype: torch.dtype, norms: dict[int, int]
) -> tuple[nn.Module, tuple[OptimizedLayer, ...], bool]:
    """The model with each BSConv layer in its fastest form, what was done, and whether
    channels_last is faster.
    """
    found = _blueprint_places(model)
    known = {id(place.module): forms(cast(Any, place.module)) for place in found}
    movable = [place for place in found if known[id(place.module)]]
    factored = {key: ways["factored"] for key, ways in known.items() if ways}
    model = exchange(model, movable, factored)
    channels_last = _is_faster_channels_last(model, example, dtype)
    sizes = _input_sizes(model, factored, example)
    seconds: dict[int, dict[str, float]] = {}
    measured: dict[Any, dict[str, float]] = {}
    for place in movable:
        key = id(place.module)
        if key in sizes and key not in seconds:
            situation = repr(place.module), sizes[key]
            if situation not in measured:
                images = torch.randn(sizes[key], device=example.device, dtype=dtype)
                measured[situation] = _time_forms(known[key], images, channels_last)
            seconds[key] = measured[situation]
    best = {key: min(times, key=times.__getitem__) for key, times in seconds.items()}
    model = exchange(
        model, movable, {key: known[key][best.get(key, "factored")] for key in factored}
    )
    layers = {}
    for place in found:
        key, layer = id(place.module), cast(Any, place.module)
        inside = sum(isinstance(part, nn.BatchNorm2d) for part in layer) if known[key] else 0
        form = best.get(key, "factored") if known[key] else "as it is: hooks or other layers in it"
        folded = inside + norms.get(key, 0)
        layers[place.name] = OptimizedLayer(
            place.name, type(layer).__name__, form, folded, seconds.get(key, {})
        )
    for place in places(model, ()):
        if id(place.module) in norms:
            kind = type(place.module).__name__
            layers[place.name] = OptimizedLayer(place.name, kind, "one convolution", 1)
    return model, tuple(layers.values()), channels_last


def _time_forms(
    ways: dict[str, nn.Module], images: Tensor, channels_last: bool
) -> dict[str, float]:
    images = images.contiguous(memory_format=FORMATS[channels_last])
    contenders = {
        name: partial(_cast(copy.deepcopy(way), images.dtype, channels_last), images)
        for name, way in ways.items()
    }
    return seconds_in_turns(contenders, images.device, LAYER_BUDGET)


def _is_faster_channels_last(model: nn.Module, example: Tensor, dtype: torch.dtype) -> bool:
    if example.dim() != 4:
        return False

    def network(channels_last: bool) -> Network:
        return Network(_cast(copy.deepcopy(model), dtype, channels_last), dtype, channels_last)

    contenders = {
        CONTIGUOUS: partial(network(False), example),
        CHANNELS_LAST: partial(network(True), example),
    }
    seconds = seconds_in_turns(contenders, example.device, LAYER_BUDGET)
    return seconds[CHANNELS_LAST] < seconds[CONTIGUOUS]


def _input_sizes(
    model: nn.Module, layers: dict[int, nn.Module], example: Tensor
) -> dict[int, torch.Size]:
    """The size of what each of ``layers`` is first called with; none for those that are not."""
    sizes: dict[int, torch.Size] = {}

    def note(key: int, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes.setdefault(key, inputs[0].shape)

    handles = [layer.register_forward_pre_hook(partial(note, key)) for key, layer in layers.items()]
    try:
        model(example)
    finally:
        for handle in handles:
            handle.remove()
    return sizes


def _compile(optimized: OptimizedModel, example: Tensor, compile: bool | Literal["auto"]) -> str:
    """Compiles, if it works; what is lost otherwise."""
    if compile is False:
        return ""
    lost = "not compiled, which costs speed: "
    try:
        compiled = compiled_for(optimized.network, example)
    except Exception as error:  # of the many that compilers raise
        return lost + _line(error)
    expected = _outputs(optimized.network(example))
    short = optimized.network.dtype in (torch.bfloat16, torch.float16)
    difference = _difference(_outputs(compiled(example)), expected)
    if not difference <= (SAME_WHEN_SHORT if short else SAME):
        return f"{lost}compiled, it differed by {difference:.1e} of its largest output"
    optimized.set_compiled(compiled)
    return ""


def _time(
    given: nn.Module, optimized: OptimizedModel, own_example: Tensor, example: Tensor
) -> dict[str, float]:
    contenders: dict[str, Callable[[], object]] = {
        "given": partial(given, own_example),
        "eager": partial(optimized.network, example),
    }
    if optimized.compiles:
        contenders["compiled"] = partial(optimized, example)
    return seconds_in_turns(contenders, example.device, MODEL_BUDGET)


def _cast(model: nn.Module, dtype: torch.dtype, channels_last: bool) -> nn.Module:
    """In place; BatchNorms keep their precision."""
    for module in model.modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None and tensor.is_floating_point():
                    tensor.data = tensor.data.to(dtype)
    return model.to(memory_format=FORMATS[channels_last])


def _blueprint_places(model: nn.Module) -> list[Place]:
    found = places(model, BLUEPRINT_LAYERS)
    return [place for place in found if isinstance(place.module, BLUEPRINT_LAYERS)]


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
