"""How the training steps of a run are computed: precision, torch.compile, plans of BSConv layers.

What a run does not set is chosen at its start and kept in its checkpoint. A long run measures it;
a short one, which would not earn back the time, takes float32 and the layers as they are.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...pytorch import BSConvU
from ...pytorch._layer_plans import PlannedLayer
from ...pytorch._tools.timing import in_turns
from ...pytorch.modules import BLUEPRINT_LAYERS
from ..config import TrainConfig
from ..data import ImageDataset, ImageFiles
from ..normalization import Normalization
from ._inputs import model_input
from ._new_head import logits_of
from ._optimizers import Optimizers

WORTH_MEASURING = 100_000  # images that a run sees in all its epochs
WORTH_COMPILING = 200_000
ROUNDS = 3
# What torch.compile is told, by device.
COMPILER: Mapping[str, Mapping[str, str | int | bool]] = {
    # narrow networks wait for kernel launches, which CUDA graphs replay at once
    "cuda": {"triton.cudagraphs": True},
    # otherwise the backward pass of each depthwise convolution copies its images into another
    # memory format and back, because the strides of a kernel of one channel are ambiguous
    "cpu": {"force_layout_optimization": True},
}


@dataclass(frozen=True)
class Execution:
    """One choice for all steps of a run; ``plans``: of each BSConv layer, by its name."""

    precision: str
    compile: bool
    plans: dict[str, str]

    def autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, self.precision == "bfloat16")

    def set_plans(self, model: nn.Module) -> None:
        """ValueError for plans of another model, such as a damaged checkpoint may hold."""
        layers = _bsconv_layers(model)
        for name, plan in self.plans.items():
            if name not in layers:
                raise ValueError(
                    f"the plans do not fit the model: {name!r} is not a BSConv layer in it"
                )
            layers[name].plan = plan

    def compiled(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model to train, which shares all parameters with ``model``."""
        if not self.compile:
            return model
        return cast(nn.Module, torch.compile(model, options=dict(COMPILER.get(device.type, {}))))

    def begin_step(self, device: torch.device) -> None:
        """Before each forward pass: CUDA graphs may now write over what the last step returned."""
        if self.compile and device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]

    def __str__(self) -> str:
        merged = sum(plan != "factored" for plan in self.plans.values())
        parts = [self.precision, "compiled" if self.compile else "eager"]
        if self.plans:
            parts.append(f"{merged} of {len(self.plans)} BSConv layers merged")
        return ", ".join(parts)


@dataclass
class Job:
    """The parts of a run that its steps change or need, all on its device."""

    model: nn.Module  # what is trained, evaluated and kept
    trained: nn.Module  # the same parameters, compiled or shared with the other processes
    teacher: nn.Module | None  # whose answers it learns
    teacher_normalization: Normalization
    optimizer: Optimizers
    dataset: ImageDataset
    generator: torch.Generator  # shuffling and augmentation; dropout draws from the global state
    execution: Execution


def choose_execution(
    model: nn.Module, images: Tensor | ImageFiles, config: TrainConfig
) -> Execution:
    """What ``config`` sets, and the fastest here of what it leaves open."""
    seen, device = config.epochs * len(images), next(model.parameters()).device
    compiled = config.compile
    if compiled is None:
        compiled = seen >= WORTH_COMPILING and can_compile(device.type)
    precisions = [config.precision]
    if config.precision == "auto":
        both = seen >= WORTH_MEASURING and device.type in ("cpu", "cuda")
        precisions = ["float32", "bfloat16"] if both else ["float32"]
    layers = _bsconv_layers(model)
    plan = config.plan
    if plan == "auto" and (seen < WORTH_MEASURING or not layers):
        plan = "factored"
    trials = [Execution(each, False, dict.fromkeys(layers, plan)) for each in precisions]
    if plan != "auto" and len(trials) == 1:
        return dataclasses.replace(trials[0], compile=compiled)
    first = images[: config.settings.batch_size].to(device)
    batch = model_input(first, config.image_size, config.normalization)
    twins = [_twin(model, trial) for trial in trials]
    best = _fastest(twins, batch, trials)
    # its first step has measured the plans of its layers
    plans = {name: layer.chosen_plan for name, layer in _bsconv_layers(twins[best]).items()}
    found = Execution(precisions[best], compiled, plans)
    # two networks in turns would overwrite each other's results in their CUDA graphs
    comparable = compiled and plan == "auto" and device.type != "cuda"
    return _faster_compiled(model, batch, found) if comparable else found


@functools.cache
def can_compile(device: str) -> bool:
    """Whether torch.compile works here: on a CPU it needs a C++ compiler, on a GPU Triton."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception:  # whatever the compiler of this machine may raise
        return False
    return True


def _faster_compiled(model: nn.Module, batch: Tensor, measured: Execution) -> Execution:
    """``measured``, or with all layers merged: compilation speeds up what eager steps are slow at.

    The winner is not compiled twice, torch.compile remembers it.
    """
    merged = {
        name: "merged" if isinstance(layer, BSConvU) else "narrow"
        for name, layer in _bsconv_layers(model).items()
    }
    if merged == measured.plans:
        return measured
    candidates = [measured, dataclasses.replace(measured, plans=merged)]
    twins = [one.compiled(_twin(model, one), batch.device) for one in candidates]
    for twin, one in zip(twins, candidates, strict=True):
        _step(twin, batch, one)  # compiles
    return candidates[_fastest(twins, batch, candidates)]


def _twin(model: nn.Module, execution: Execution) -> nn.Module:
    twin = copy.deepcopy(model).train()
    execution.set_plans(twin)
    return twin


def _fastest(models: list[nn.Module], batch: Tensor, executions: list[Execution]) -> int:
    """Which of the models has the shortest of some training steps in turns, after one of each."""
    steps = {
        number: functools.partial(_step, model, batch, execution)
        for number, (model, execution) in enumerate(zip(models, executions, strict=True))
    }
    seconds = in_turns(steps, batch.device, rounds=ROUNDS if len(models) > 1 else 1)
    return min(steps, key=lambda number: min(seconds[number]))


def _step(model: nn.Module, batch: Tensor, execution: Execution) -> None:
    """Forward and backward pass; the random state is left as it was."""
    device = batch.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        with execution.autocast(device):
            logits = logits_of(model(batch)).float()
        F.cross_entropy(logits, logits.argmax(1)).backward()  # type: ignore[no-untyped-call]


def _bsconv_layers(model: nn.Module) -> dict[str, PlannedLayer]:
    modules = model.named_modules()
    return {name: module for name, module in modules if isinstance(module, BLUEPRINT_LAYERS)}
