"""Networks measured side by side, as PyTorch gives them and optimised."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bsconv.pytorch import ModelProfiler, reestimate_batch_norm
from bsconv.pytorch.inference import optimize_for_inference

from ..training import find_device
from ._measurement import AS_GIVEN, COMPILED, OPTIMISED, Measurement
from ._memory import peak_bytes
from ._table import InferenceBenchmark, Setting
from ._turns import Stopwatch, measure_in_turns, stopwatch_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SETTLED_ON = 4  # images


@dataclass(frozen=True)
class _Contender:
    network: str
    computed: str
    call: Callable[[], object]


def benchmark_inference(
    models: Mapping[str, nn.Module],
    input_size: Sequence[int],
    *,
    name: str = "",
    batch_sizes: Sequence[int] = (1, 16),
    dtype: str = "float32",
    device: str = "auto",
    rounds: int | None = None,
    compile: bool = True,
    notes: Sequence[str] = (),
    progress: bool = False,
    stopwatch: Stopwatch | None = None,
) -> InferenceBenchmark:
    """What each network costs, and how long a batch takes in it: as PyTorch gives it and optimised.

    ``models`` holds float32 networks by what they are called, of which "dense" is what the others
    are compared with; they are changed: eval mode, BatchNorms with the statistics of the images,
    ``device``. The images are random, ``input_size`` (C, H, W) each. "As given" is a call in
    eval mode under ``torch.inference_mode`` of the network in ``dtype``; optimised is
    :func:`bsconv.pytorch.inference.optimize_for_inference` for that batch, through torch.compile
    where ``compile`` allows it and it turns out faster. For one size of batch all of them take
    turns (:func:`measure_in_turns`, which takes ``rounds``); ``stopwatch`` tells the seconds of one
    call. ``progress`` shows a bar on a terminal; ``notes`` are lines to stand below the table.

    Raises ValueError for what is not possible: an unknown ``dtype`` or ``device``, a size that a
    network does not take, one that cannot be computed in this precision or memory.
    """
    _check(models, batch_sizes, dtype)
    place = find_device(device)
    seconds_of = stopwatch or stopwatch_of(place)
    setting = Setting.here(name, place, dtype, tuple(input_size))
    costs = {key: _cost(model, input_size) for key, model in models.items()}
    rows: list[Measurement] = []
    lines = list(notes)
    sizes = dict.fromkeys(batch_sizes)
    with _without_gpu_advice(), _bar(2 * len(sizes), progress) as bar:
        for key, model in models.items():
            with _explained(key, setting, SETTLED_ON):
                _settle(model, input_size).to(place)
        for count in sizes:
            images = _images(count, input_size, place).to(DTYPES[dtype])
            contenders: list[_Contender] = []
            for key, model in models.items():
                bar.set_description_str(f"batches of {count}: optimising {key}")
                with _explained(key, setting, count):
                    found, lost = _contenders(key, model, images, compile)
                contenders += found
                lines += [lost] if lost and lost not in lines else []
                bar.update(1 / len(models))
            bar.set_description_str(f"batches of {count}: measuring")
            calls = [one.call for one in contenders]
            taken = measure_in_turns(calls, seconds_of, rounds, bar.update)
            for one, seconds in zip(contenders, taken, strict=True):
                counts, peak = costs[one.network], peak_bytes(one.call, place)
                rows.append(Measurement(count, one.network, one.computed, *counts, seconds, peak))
    return InferenceBenchmark(setting, tuple(rows), tuple(lines))


def _check(models: Mapping[str, nn.Module], batch_sizes: Sequence[int], dtype: str) -> None:
    if not models:
        raise ValueError("models needs at least one network, got none")
    if not batch_sizes or min(batch_sizes) < 1:
        raise ValueError(f"batch_sizes needs numbers of at least 1, got {tuple(batch_sizes)}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype needs to be one of {', '.join(DTYPES)}, got {dtype!r}")


def _cost(model: nn.Module, input_size: Sequence[int]) -> tuple[int, int, int]:
    """Parameters, and FLOPs and MACs of one image."""
    found = ModelProfiler(model, (1, *input_size))
    return found.total_parameter_count, found.total_flop_count, found.total_mac_count


def _contenders(
    key: str, model: nn.Module, images: Tensor, compile: bool
) -> tuple[list[_Contender], str]:
    """The network in both treatments, and what could not be had."""
    given = model if images.dtype == torch.float32 else copy.deepcopy(model).to(images.dtype)
    call = functools.partial(_call, given, images)
    call()  # a precision that this machine cannot compute is found here
    optimized = optimize_for_inference(
        model, images, dtype=images.dtype, compile="auto" if compile else False
    )
    how = COMPILED if optimized.compiles else OPTIMISED
    faster = functools.partial(_call, optimized, images)
    return [_Contender(key, AS_GIVEN, call), _Contender(key, how, faster)], optimized.report.lost


def _call(model: nn.Module, images: Tensor) -> None:
    with torch.inference_mode():
        model(images)


def _images(count: int, size: Sequence[int], device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *size, generator=generator).to(device)


def _settle(model: nn.Module, size: Sequence[int]) -> nn.Module:
    """With BatchNorms that fit, numbers keep to the range that trained networks have."""
    images = _images(SETTLED_ON, size, torch.device("cpu"))
    with torch.no_grad():
        return reestimate_batch_norm(model, images).eval()


@contextlib.contextmanager
def _explained(network: str, setting: Setting, count: int) -> Iterator[None]:
    """One line for whatever PyTorch raises, for want of memory or of a kernel."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(
            f"{network} cannot be computed in {setting.dtype} on {setting.device} with batches of "
            f"{count} x {setting.size_text} ({reason})"
        ) from error


@contextlib.contextmanager
def _without_gpu_advice() -> Iterator[None]:
    """torch.compile warns where a CUDA toolkit is installed and there is no GPU to use it."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _bar(total: int, progress: bool) -> tqdm:
    """None for disable: no bar where stderr is no terminal."""
    return tqdm(
        total=total,
        disable=None if progress else True,
        leave=False,
        bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}",
    )
