"""How the training steps of a run are computed: precision, torch.compile, plans of BSConv layers.

What a run does not set is chosen at its start and kept in its checkpoint. A long run measures it;
a short one, which would not earn back the time, takes float32 and the layers as they are.
"""

import copy
import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...basics.timing import in_turns
from ...pytorch import BSConvU
from ...pytorch._layer_plans import PlannedLayer
from ...pytorch.modules import BLUEPRINT_LAYERS
from ..config import TrainConfig
from ..data import ImageDataset, ImageFiles
from ..normalization import Normalization
from ..optimizers import Optimizers
from ._inputs import logits_of, model_input

WORTH_MEASURING = 100_000  # images that a run sees in all its epochs
WORTH_COMPILING = 200_000
ROUNDS = 3
COMPILER = {  # what torch.compile is told, by device
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

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """Of a training step: computed in its precision, given in float32."""
        with torch.autocast(images.device.type, torch.bfloat16, self.precision == "bfloat16"):
            return logits_of(model(images)).float()

    def set_plans(self, model: nn.Module) -> None:
        """ValueError for plans of another model, such as a damaged checkpoint may hold."""
        layers = _bsconv_layers(model)
        for name, plan in self.plans.items():
            if name not in layers:
                misfit = f"{name!r} is not a BSConv layer in it"
                raise ValueError(f"the plans do not fit the model: {misfit}")
            layers[name].plan = plan

    def compiled(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model to train, which shares all parameters with ``model``."""
        if not self.compile:
            return model
        options: Any = COMPILER.get(device.type, {})
        # steps for any batch size, which the last batch would bring about, are slower
        return cast(nn.Module, torch.compile(model, options=options, dynamic=False))

    def begin_step(self, device: torch.device) -> None:
        """CUDA graphs may now write over what the last step returned."""
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
    found = dataclasses.replace(_fastest(model, batch, trials), compile=compiled)
    # two networks in turns would overwrite each other's results in their CUDA graphs
    if plan != "auto" or not compiled or device.type == "cuda":
        return found
    # compilation speeds up what eager steps are slow at: layers with all their weights multiplied
    merged = {
        name: "merged" if isinstance(layer, BSConvU) else "narrow" for name, layer in layers.items()
    }
    candidates = [found, dataclasses.replace(found, plans=merged)]
    return found if merged == found.plans else _fastest(model, batch, candidates)


@functools.cache
def can_compile(device: str) -> bool:
    """Whether torch.compile works here: on a CPU it needs a C++ compiler, on a GPU Triton."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception:  # whatever the compiler of this machine may raise
        return False
    return True


def _fastest(model: nn.Module, batch: Tensor, executions: list[Execution]) -> Execution:
    """The one with the shortest of some training steps in turns, with the plans of its layers."""
    steps, twins = {}, []
    for number, execution in enumerate(executions):
        twin = copy.deepcopy(model).train()
        execution.set_plans(twin)
        twins.append(twin)
        compiled = execution.compiled(twin, batch.device)
        steps[number] = functools.partial(_step, compiled, batch, execution)
    seconds = in_turns(steps, batch.device, rounds=ROUNDS if len(steps) > 1 else 1)
    best = min(steps, key=lambda number: min(seconds[number]))
    plans = {name: layer.chosen_plan for name, layer in _bsconv_layers(twins[best]).items()}
    return dataclasses.replace(executions[best], plans=plans)


def _step(model: nn.Module, batch: Tensor, execution: Execution) -> None:
    """Forward and backward pass; the random state is left as it was."""
    with torch.random.fork_rng([batch.device] if batch.device.type == "cuda" else []):
        logits = execution.logits(model, batch)
        F.cross_entropy(logits, logits.argmax(1)).backward()  # type: ignore[no-untyped-call]


def _bsconv_layers(model: nn.Module) -> dict[str, PlannedLayer]:
    modules = model.named_modules()
    return {name: module for name, module in modules if isinstance(module, BLUEPRINT_LAYERS)}
