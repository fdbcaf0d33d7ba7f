"""A network and its BSConv variants measured in turns, as PyTorch gives them and optimised."""

import contextlib
import copy
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...basics.errors import one_line
from ...basics.timing import SETTLE, in_turns, synchronize
from ...pytorch import ModelProfiler, reestimate_batch_norm
from ...pytorch.inference import optimize_for_inference
from ...pytorch.modules import BLUEPRINT_LAYERS
from ..model_sources import build_model
from ..normalization import Normalization
from ..results.published import family_and_variant
from ..rules import replaced_by
from ..training import find_device
from ._report import AS_GIVEN, COMPILED, DENSE, OPTIMISED, InferenceBenchmark, Measurement, Setting

SETTLED_ON = 4  # images
BUDGET = 30.0  # seconds of measuring for a batch size, unless the number of rounds is given
TURN = 0.05  # seconds that a turn lasts at least
BAR = "{desc} {percentage:3.0f}% |{bar}| {elapsed}"

Call = Callable[[], object]


def build_variants(
    name: str,
    num_classes: int,
    variants: Sequence[str] = (DENSE, "u", "s"),
    *,
    p: float = 0.25,
    with_bn: bool = False,
) -> tuple[dict[str, nn.Module], list[str]]:
    """The networks to compare by what they are called, and a line on each that is left out.

    A BSConv network is measured alone. A variant that replaces nothing is left out; if no other
    remains, the dense network takes its place. Weights are random, and the same each time.
    """
    models: dict[str, nn.Module] = {}
    lines: list[str] = []
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(0)
        warnings.simplefilter("ignore")  # a line says that nothing is replaced
        own = family_and_variant(name)[1]
        if own != DENSE:
            line = f"{name} is a BSConv network already and is measured alone"
            return {own: build_model(name, num_classes)}, [line]
        for variant in dict.fromkeys(variants):
            kind = None if variant == DENSE else variant
            label = DENSE if kind is None else replaced_by(kind, p, with_bn)
            model = build_model(name, num_classes, bsconv=kind, p=p, with_bn=with_bn)
            if kind and not any(isinstance(each, BLUEPRINT_LAYERS) for each in model.modules()):
                why = f"it replaces no convolution of {name}, see bsconv plan"
                lines.append(f"{label} is left out: {why}")
            else:
                models[label] = model
        if not models:
            models[DENSE] = build_model(name, num_classes)
    return models, lines


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
    normalization: Normalization | None = None,
    notes: Sequence[str] = (),
    progress: bool = False,
) -> InferenceBenchmark:
    """The cost of each network, and its seconds for a batch: as PyTorch gives it and optimised.

    ``models`` holds float32 networks by name; the others are compared with the one named "dense".
    They are changed: eval mode, BatchNorms with the statistics of the images, ``device``. The
    images are random, ``input_size`` (C, H, W) each; with a ``normalization``, in [0, 1] before.
    ``dtype`` is a name such as "bfloat16". Optimised is ``optimize_for_inference`` for that batch,
    with ``compile`` through torch.compile where that is faster. All take turns, in ``rounds``
    rounds, by default as many as half a minute holds. ``notes`` are lines below the table.
    """
    place = find_device(device)
    setting = Setting.here(name, place, dtype, tuple(input_size))
    costs = {}
    for key, model in models.items():
        cost = ModelProfiler(model, (1, *input_size))
        costs[key] = cost.total_parameter_count, cost.total_flop_count, cost.total_mac_count
    rows: list[Measurement] = []
    lines = list(notes)
    sizes = dict.fromkeys(batch_sizes)
    drawn = functools.partial(_images, size=input_size, normalization=normalization)
    for key, model in models.items():
        with _explained(key, setting, SETTLED_ON), torch.no_grad():
            # with BatchNorms that fit, numbers keep to the range that trained networks have
            reestimate_batch_norm(model, drawn(SETTLED_ON)).eval().to(place)
    # None: no bar where stderr is not a terminal
    looks: dict[str, Any] = {"disable": None if progress else True, "leave": False}
    with tqdm(total=len(sizes) * (len(models) + 1), bar_format=BAR, **looks) as bar:
        for count in sizes:
            images = drawn(count).to(place, getattr(torch, dtype))
            calls: dict[tuple[str, str], Call] = {}
            for key, model in models.items():
                bar.set_description_str(f"batches of {count}: optimising {key}")
                with _explained(key, setting, count):
                    found, lost = _calls(model, images, compile)
                calls |= {(key, computed): call for computed, call in found.items()}
                lines += [lost] if lost and lost not in lines else []
                bar.update()
            bar.set_description_str(f"batches of {count}: measuring")
            taken = in_turns(calls, place, rounds=rounds, budget=BUDGET, turn=TURN, settle=SETTLE)
            bar.update()
            for (key, computed), seconds in taken.items():
                peak = _peak_bytes(calls[key, computed], place)
                rows.append(Measurement(count, key, computed, *costs[key], tuple(seconds), peak))
    return InferenceBenchmark(setting, tuple(rows), tuple(lines))


def _calls(model: nn.Module, images: Tensor, compile: bool) -> tuple[dict[str, Call], str]:
    """Calls of the network as given and optimised, and what could not be built."""
    given = model if images.dtype == torch.float32 else copy.deepcopy(model).to(images.dtype)
    call = functools.partial(_call, given, images)
    call()  # a precision that this machine cannot compute is found here
    how: Any = "auto" if compile else False
    optimized = optimize_for_inference(model, images, dtype=images.dtype, compile=how)
    faster = functools.partial(_call, optimized, images)
    computed = COMPILED if optimized.compiles else OPTIMISED
    return {AS_GIVEN: call, computed: faster}, optimized.report.lost


def _call(model: nn.Module, images: Tensor) -> None:
    with torch.inference_mode():
        model(images)


def _peak_bytes(call: Call, device: torch.device) -> int | None:
    """The most bytes that PyTorch holds on a GPU in a call, beyond those before; None on a CPU."""
    if device.type != "cuda":
        return None
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _images(count: int, size: Sequence[int], normalization: Normalization | None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if normalization is None:
        return torch.randn(count, *size, generator=generator)
    return normalization.apply(torch.rand(count, *size, generator=generator))


@contextlib.contextmanager
def _explained(network: str, setting: Setting, count: int) -> Iterator[None]:
    """One line for whatever PyTorch raises for lack of memory or of a kernel."""
    try:
        yield
    except RuntimeError as error:
        where = f"{setting.dtype} on {setting.device} with batches of {count} x {setting.size_text}"
        why = f"{network} cannot be computed in {where} ({one_line(error)})"
        raise ValueError(why) from error
