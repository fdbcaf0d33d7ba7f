"""What a layer costs, by its type, and the rows that add it up over its calls."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from math import prod
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._tools.convs import BATCH_NORMS, CONVOLUTIONS
from .._tools.model_tree import tensors_in, watching


def _of_all_dimensions(*kinds: str) -> tuple[Any, ...]:
    return tuple(getattr(nn, f"{kind}{sides}d") for kind in kinds for sides in (1, 2, 3))


POOLED = "MaxPool", "AvgPool", "LPPool", "AdaptiveMaxPool", "AdaptiveAvgPool"
POOLINGS = (*_of_all_dimensions(*POOLED), nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
# these compute nothing in eval mode: at most they move or copy
IDLE = (
    *_of_all_dimensions("ZeroPad", "ConstantPad", "ReflectionPad", "ReplicationPad", "Dropout"),
    nn.Identity, nn.Sequential, nn.Flatten, nn.Unflatten, nn.Dropout, nn.AlphaDropout,
    nn.FeatureAlphaDropout, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
)  # fmt: skip


class Cost(NamedTuple):
    """``activations`` are the outputs of convolutions and linear layers, of nothing else."""

    flops: int
    macs: int = 0
    activations: int = 0


def weighted(layer: Any, inputs: Tensor, outputs: int) -> Cost:
    """Each output takes the weights of its filter; in transposed ones, each input gives to one."""
    if isinstance(layer, nn.Linear):
        macs = outputs * layer.in_features
    elif layer.transposed:
        macs = inputs.numel() * (layer.out_channels // layer.groups) * prod(layer.kernel_size)
    else:
        macs = outputs * (layer.in_channels // layer.groups) * prod(layer.kernel_size)
    return Cost(macs if layer.bias is None else macs + outputs, macs, activations=outputs)


def batch_norm(layer: Any, inputs: Tensor, outputs: int) -> Cost:
    return Cost((2 if layer.affine else 1) * outputs)


def one_per_input(layer: nn.Module, inputs: Tensor, outputs: int) -> Cost:
    return Cost(inputs.numel())


Call = tuple[tuple[Any, ...], dict[str, Any]]  # positional arguments, keyword arguments
Rule = Callable[..., Cost]  # of a layer, the first tensor of its inputs, the number of outputs
RULES: dict[type, Rule] = {
    **dict.fromkeys((*CONVOLUTIONS, nn.Linear), weighted),
    **dict.fromkeys((*BATCH_NORMS, nn.SyncBatchNorm), batch_norm),
    **dict.fromkeys((*POOLINGS, nn.ReLU), one_per_input),
}


def rule_for(layer: nn.Module) -> Rule | None:
    """That of its type or the nearest base; None for what is free."""
    return next((RULES[base] for base in type(layer).__mro__ if base in RULES), None)


@dataclass(frozen=True)
class LayerProfile:
    """One layer: a module that computes something by a rule, has parameters, or has no children.

    ``name`` is the first of its names; the root is called "". The counts are those of all its
    ``calls``. ``parameters`` are without its children's and those of earlier layers.
    ``output_shape`` is that of the first tensor of its last output, None if it was not called.

    >>> ModelProfiler(nn.Conv2d(3, 8, 3), (1, 3, 8, 8)).rows[0].macs
    7776
    """

    name: str
    type: str
    calls: int
    parameters: int
    flops: int
    macs: int
    activations: int
    output_shape: tuple[int, ...] | None


@dataclass
class Counter:
    """Adds up the calls of one layer, as a hook after its forward; ``parameters`` are its share."""

    name: str
    layer: nn.Module
    parameters: int
    calls: int = 0
    costs: list[Cost] = field(default_factory=lambda: [Cost(0)])
    output_shape: tuple[int, ...] | None = None

    def __call__(self, layer: nn.Module, args: object, kwargs: object, outputs: object) -> None:
        self.calls += 1
        for output in islice(tensors_in(outputs), 1):
            self.output_shape = tuple(output.shape)
            if rule := rule_for(layer):
                first = islice(tensors_in([args, kwargs]), 1)
                self.costs += (rule(layer, given, prod(self.output_shape)) for given in first)

    @property
    def is_free(self) -> bool:
        """Whether it was called, and computed something that no rule counts, for all we know."""
        return self.calls > 0 and not rule_for(self.layer) and type(self.layer) not in IDLE

    def row(self) -> LayerProfile:
        own = (self.name, type(self.layer).__name__, self.calls, self.parameters)
        flops, macs, activations = (sum(counts) for counts in zip(*self.costs, strict=True))
        return LayerProfile(*own, flops, macs, activations, self.output_shape)


def count(model: nn.Module, call: Call, inside: AbstractContextManager[Any]) -> list[Counter]:
    """Calls the model ``inside`` a context; a counter for each of its layers."""
    counters = list(_counters(model))
    with watching([(counter.layer, counter) for counter in counters], with_kwargs=True), inside:
        model(*call[0], **call[1])
    return counters


def _counters(model: nn.Module) -> Iterator[Counter]:
    """What parametrises a weight belongs to the layer of that weight: it gets no row of its own."""
    inner: set[nn.Module] = set()
    counted: set[nn.Parameter] = set()
    for name, module in model.named_modules():  # parents come first
        if module in inner:
            continue
        own = set(module.parameters(recurse=False))
        if parametrize.is_parametrized(module):
            inner.update(module.get_submodule("parametrizations").modules())
            own.update(module.get_submodule("parametrizations").parameters())
        if own or rule_for(module) or not any(True for _ in module.children()):
            yield Counter(name, module, sum(parameter.numel() for parameter in own - counted))
            counted |= own
