"""A network and its BSConv variants measured in turns, as PyTorch gives them and in each engine."""

import contextlib
import copy
import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...basics.errors import one_line
from ...basics.timing import SETTLE, in_turns
from ...engines import ENGINES
from ...pytorch import BSConvCP, BSConvU_Replacer, ModelProfiler, reestimate_batch_norm
from ...pytorch._forms.form import Form
from ...pytorch._forms.plans import install
from ...pytorch.inference import optimize_for_inference
from ...pytorch.modules import BLUEPRINT_LAYERS
from ..model_sources import build_model
from ..normalization import Normalization
from ..results.published import family_and_variant
from ..rules import replaced_by
from ..training import find_device
from ._report import AS_GIVEN, DENSE, InferenceBenchmark, Measurement, Setting

SETTLED_ON = 4  # images
BUDGET = 30.0  # seconds of measuring for a batch size, unless the number of rounds is given
TURN = 0.05  # seconds that a turn lasts at least
ON_CPU, ELSEWHERE = (512, 2**27), (4096, 2**30)  # the side of a matrix, bytes that no cache holds


def build_variants(
    name: str,
    num_classes: int,
    variants: Sequence[str] = (DENSE, "u", "s", "cp"),
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
        if (own := family_and_variant(name)[1]) != DENSE:
            line = f"{name} is a BSConv network already and is measured alone"
            return {own: build_model(name, num_classes)}, [line]
        for variant in dict.fromkeys(variants):
            kind = None if variant == DENSE else variant
            label = DENSE if kind is None else replaced_by(kind, p, with_bn)
            own_kind = None if kind == "cp" else kind
            model = build_model(name, num_classes, bsconv=own_kind, p=p, with_bn=with_bn)
            model = with_shared_blueprints(model, with_bn) if kind == "cp" else model
            if kind and not any(isinstance(each, BLUEPRINT_LAYERS) for each in model.modules()):
                why = f"it replaces no convolution of {name}, see bsconv plan"
                lines.append(f"{label} is left out: {why}")
            else:
                models[label] = model
        if not models:
            models[DENSE] = build_model(name, num_classes)
    return models, lines


def with_shared_blueprints(model: nn.Module, with_bn: bool) -> nn.Module:
    """BSConv-CP where BSConv-U would be, with as many weights, or up to a blueprint fewer."""
    layers: dict[str, nn.Module] = {}
    for planned in BSConvU_Replacer().plan(model).replaced:
        conv: Any = model.get_submodule(planned.name)
        if blueprints := Form("u").macs(conv) // Form("cp", 1).macs(conv):
            layer = BSConvCP.like(conv, blueprints=blueprints, with_bn=with_bn)
            layers |= dict.fromkeys(planned.names, layer)
    return install(model, layers)


def benchmark_inference(
    models: Mapping[str, nn.Module],
    input_size: Sequence[int],
    *,
    name: str = "",
    batch_sizes: Sequence[int] = (1, 16),
    dtype: str = "float32",
    device: str = "auto",
    rounds: int | None = None,
    engines: Sequence[str] = tuple(ENGINES),
    normalization: Normalization | None = None,
    notes: Sequence[str] = (),
) -> InferenceBenchmark:
    """The cost of each network, and its seconds for a batch: as PyTorch gives it, in each engine.

    ``models`` holds float32 networks by name; the others are compared with the one named "dense".
    They are changed: eval mode, BatchNorms with the statistics of the images, ``device``. The
    images are random, ``input_size`` (C, H, W) each; with a ``normalization``, in [0, 1] before.
    ``dtype`` is a name such as "bfloat16". All take turns, in ``rounds`` rounds, by default as many
    as half a minute holds. Lines below the table, ``notes`` first, name missing ``engines``.
    """
    place, number = find_device(device), getattr(torch, dtype)
    setting = Setting.here(name, place, dtype, "x".join(map(str, input_size)))
    costs = {key: ModelProfiler(model, (1, *input_size)) for key, model in models.items()}
    why_not = {one: ENGINES[one].why_not(place, number) for one in engines}
    lines = [*notes, *(f"{one}: {why}" for one, why in why_not.items() if why)]
    here = [one for one, why in why_not.items() if not why]
    rows: list[Measurement] = []
    for key, model in models.items():
        with _explained(key, setting, SETTLED_ON), torch.no_grad():
            # with BatchNorms that fit, numbers keep to the range that trained networks have
            images = _images(SETTLED_ON, input_size, normalization)
            reestimate_batch_norm(model, images).eval().to(place)
    roof = measured_roof(place, number)
    speeds = f"{roof[0] / 1e9:,.0f} GFLOP/s and {roof[1] / 1e9:,.0f} GB/s"
    lines.append(f"limit: the roofline's, layer by layer at {speeds}; caches may beat it")
    for count in dict.fromkeys(batch_sizes):
        images = _images(count, input_size, normalization).to(place, number)
        calls: dict[tuple[str, str], Any] = {}
        # disable=None: no bar where stderr is not a terminal
        for key, model in tqdm(models.items(), f"batches of {count}", leave=False, disable=None):
            with _explained(key, setting, count):
                calls |= _calls(key, model, images, here, lines)
        taken = in_turns(calls, place, rounds=rounds, budget=BUDGET, turn=TURN, settle=SETTLE)
        for (key, how), seconds in taken.items():
            cost, peak = costs[key], _peak_bytes(calls[key, how], place)
            counts = cost.total_parameter_count, cost.total_flop_count, cost.total_mac_count
            limit = _least_seconds(roof, cost, count, number.itemsize)
            rows.append(Measurement(count, key, how, *counts, tuple(seconds), peak, limit))
    return InferenceBenchmark(setting, tuple(rows), tuple(dict.fromkeys(lines)))


def _calls(
    key: str, model: nn.Module, images: Tensor, engines: Sequence[str], lines: list[str]
) -> dict[tuple[str, str], Any]:
    """Of the network as given and in each engine; why there is none is added to ``lines``."""
    given = model if images.dtype == torch.float32 else copy.deepcopy(model).to(images.dtype)
    calls: dict[tuple[str, str], Any] = {}
    calls[key, AS_GIVEN] = functools.partial(torch.inference_mode()(given), images)
    calls[key, AS_GIVEN]()  # a precision that this machine cannot compute is found here
    for name in engines:
        fast = optimize_for_inference(model, images, dtype=images.dtype, engines=name)
        if name in (fast.report.engine, "eager"):  # PyTorch, as given where that is faster
            calls[key, name] = functools.partial(torch.inference_mode()(fast), images)
        else:
            lines.append(f"{key} in {fast.report.lost or f'{name}: slower than as given'}")
    return calls


def measured_roof(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """FLOPs, two for a multiply-accumulate, of a large matrix product or convolution, whichever is
    faster, and bytes of a large copy: in a second, by the fastest of some within half a second."""
    side, size = ON_CPU if device.type == "cpu" else ELSEWHERE
    ones = functools.partial(torch.ones, dtype=dtype, device=device)
    left, right = ones(2, side, side)
    shapes = (torch.get_num_threads(), side // 4, 28, 28), (side // 4, side // 4, 3, 3)
    images, kernel = (ones(shape).to(memory_format=torch.channels_last) for shape in shapes)
    source, target = torch.ones(2, size, dtype=torch.uint8, device=device)
    calls: dict[str, Any] = {
        "product": lambda: torch.mm(left, right),
        "convolution": lambda: nn.functional.conv2d(images, kernel, padding=1),
        "copy": lambda: target.copy_(source),
    }
    least = {name: min(taken) for name, taken in in_turns(calls, device, budget=0.5).items()}
    convolved = 2 * images.numel() * kernel[0].numel() / least["convolution"]
    return max(2 * side**3 / least["product"], convolved), 2 * size / least["copy"]


def _least_seconds(roof: tuple[float, float], cost: ModelProfiler, count: int, width: int) -> float:
    """The roofline's: a layer reads its weights, writes its outputs, and the next reads these."""
    flops = (2 * count * row.macs / roof[0] for row in cost.rows)
    moved = (row.parameters + 2 * count * row.activations for row in cost.rows)
    return sum(map(max, flops, (width * numbers / roof[1] for numbers in moved)))


def _peak_bytes(call: Any, device: torch.device) -> int | None:
    """The most bytes that PyTorch holds on a GPU in a call, beyond those before; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return torch.cuda.max_memory_allocated(device) - before


def _images(count: int, size: Sequence[int], normalization: Normalization | None) -> Tensor:
    draw = torch.randn if normalization is None else torch.rand
    images = draw(count, *size, generator=torch.Generator().manual_seed(0))
    return images if normalization is None else normalization.apply(images)


@contextlib.contextmanager
def _explained(network: str, setting: Setting, count: int) -> Iterator[None]:
    """One line for whatever PyTorch raises for lack of memory or of a kernel."""
    try:
        yield
    except RuntimeError as error:
        batches = f"batches of {count} x {setting.input_size}"
        where = f"{setting.dtype} on {setting.device} with {batches}"
        raise ValueError(f"{network} cannot be computed in {where} ({one_line(error)})") from error
