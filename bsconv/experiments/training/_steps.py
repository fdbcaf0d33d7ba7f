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

from bsconv.pytorch import BSConvU
from bsconv.pytorch._layer_plans import PlannedLayer
from bsconv.pytorch._tools.timing import in_turns
from bsconv.pytorch.modules import BLUEPRINT_LAYERS

from ..config import TrainConfig
from ..data import ImageDataset
from ._inputs import logits_of, model_input
from ._optimizers import Optimizers

__all__ = ["Execution", "Job", "choose_execution"]

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

    def noted_in(self, config: TrainConfig) -> TrainConfig:
        """The settings with what was chosen for them."""
        return dataclasses.replace(config, precision=self.precision, compile=self.compile)

    def set_plans(self, model: nn.Module) -> None:
        """ValueError for plans of another model, such as a damaged checkpoint may hold."""
        layers = dict(model.named_modules())
        for name, plan in self.plans.items():
            layer = layers.get(name)
            if not isinstance(layer, BLUEPRINT_LAYERS):
                raise ValueError(
                    f"the plans do not fit the model: {name!r} is not a BSConv layer in it"
                )
            layer.plan = plan

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
    optimizer: Optimizers
    dataset: ImageDataset
    generator: torch.Generator  # shuffling and augmentation; dropout draws from the global state
    execution: Execution


def choose_execution(model: nn.Module, images: Tensor, config: TrainConfig) -> Execution:
    """What ``config`` sets, and the fastest here of what it leaves open."""
    seen = config.epochs * len(images)
    compiled = config.compile
    if compiled is None:
        compiled = seen >= WORTH_COMPILING and can_compile(images.device.type)
    precisions = [config.precision]
    if config.precision == "auto":
        both = seen >= WORTH_MEASURING and images.device.type in ("cpu", "cuda")
        precisions = ["float32", "bfloat16"] if both else ["float32"]
    plan = config.plan
    if plan == "auto" and (seen < WORTH_MEASURING or not _bsconv_layers(model)):
        plan = "factored"
    if plan != "auto" and len(precisions) == 1:
        return Execution(precisions[0], compiled, dict.fromkeys(_bsconv_layers(model), plan))
    batch = model_input(images[: config.batch_size], config.image_size)
    found = dataclasses.replace(_fastest(model, batch, precisions, plan), compile=compiled)
    # two networks in turns would overwrite each other's results in their CUDA graphs
    comparable = compiled and plan == "auto" and batch.device.type != "cuda"
    return _faster_compiled(model, batch, found) if comparable else found


@functools.cache
def can_compile(device: str) -> bool:
    """Whether torch.compile works here: on a CPU it needs a C++ compiler, on a GPU Triton."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception:  # whatever the compiler of this machine may raise
        return False
    return True


def _fastest(model: nn.Module, batch: Tensor, precisions: list[str], plan: str) -> Execution:
    """Of a few training steps of copies, whose first measures the plans of its layers."""
    plans = dict.fromkeys(_bsconv_layers(model), plan)
    trials = [Execution(precision, False, plans) for precision in precisions]
    twins = [_twin(model, trial) for trial in trials]
    best = _least_seconds(twins, batch, trials)
    layers = _bsconv_layers(twins[best])
    chosen = {name: layer.chosen_plan for name, layer in layers.items()}
    return dataclasses.replace(trials[best], plans=chosen)


def _faster_compiled(model: nn.Module, batch: Tensor, measured: Execution) -> Execution:
    """``measured``, or with all layers merged: compilation speeds up what eager steps are slow at.

    The winner is not compiled twice, torch.compile remembers it.
    """
    layers = _bsconv_layers(model)
    merged = {
        name: "merged" if isinstance(layer, BSConvU) else "narrow" for name, layer in layers.items()
    }
    candidates = [measured, dataclasses.replace(measured, plans=merged)]
    if merged == measured.plans:
        return measured
    twins = [one.compiled(_twin(model, one), batch.device) for one in candidates]
    for twin, one in zip(twins, candidates, strict=True):
        _step(twin, batch, one)  # compiles
    return candidates[_least_seconds(twins, batch, candidates)]


def _twin(model: nn.Module, execution: Execution) -> nn.Module:
    twin = copy.deepcopy(model).train()
    execution.set_plans(twin)
    return twin


def _least_seconds(models: list[nn.Module], batch: Tensor, executions: list[Execution]) -> int:
    """Which of the models is the fastest: the least of some steps in turns, after one of each."""
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
    return {
        name: layer for name, layer in model.named_modules() if isinstance(layer, BLUEPRINT_LAYERS)
    }
