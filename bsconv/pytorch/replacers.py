"""Replace the convolutions of any model by BSConv layers (paper, section 3: a drop-in)."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from ._tools.convs import CONVOLUTIONS, Conv, IntOrTuple, checked_sizes, mid_channels
from ._tools.model_tree import (
    Place,
    check_module,
    check_unwrapped,
    exchange,
    parameter_count,
    places,
)
from ._tools.obstacles import excluded_modules, unmovable_hooks, why_not_plain, why_tied
from .initialization import match_variance_
from .modules import BLUEPRINT_LAYERS, BSConvS, BSConvU
from .plan import LayerPlan, Plan
from .regularization import attach_reg_loss, check_reg_loss

Layer = BSConvU | BSConvS
GRID = 8  # engines compute channels in blocks


@dataclass
class _Candidate:
    """A convolution, the places where it hangs, and why it stays or what would replace it."""

    module: Any
    places: list[Place] = field(default_factory=list)
    obstacle: str = ""
    stand_in: Any = None  # on the meta device


class Replacer:
    """The walk, the plan and the exchange; a subclass names the new layer."""

    layer_class: type[BSConvU] | type[BSConvS]
    report: Plan | None = None

    def __init__(
        self,
        kernel_sizes: Sequence[IntOrTuple] | None,
        options: dict[str, Any],
        verbosity: int,
        init: str,
        exclude: Sequence[str],
        dimensions: Sequence[int],
    ) -> None:
        numbers = tuple(dimensions) if isinstance(dimensions, Iterable) else ()
        if not numbers or not all(one in (1, 2, 3) for one in numbers):
            raise ValueError(f"dimensions needs some of 1, 2 and 3, got dimensions={dimensions!r}")
        if init not in ("default", "matched", "project"):
            raise ValueError(
                f"init needs to be 'default', 'matched' or 'project', got init={init!r}"
            )
        names = tuple(exclude) if isinstance(exclude, Iterable) else (exclude,)
        if isinstance(exclude, str) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"exclude needs a sequence of layer names, got exclude={exclude!r}")
        self.kernel_sizes = None if kernel_sizes is None else checked_sizes(kernel_sizes, numbers)
        self.options = options
        self.verbosity = verbosity
        self.init = init
        self.exclude = names
        self.dimensions = numbers

    def __repr__(self) -> str:
        last = {name: getattr(self, name) for name in ("init", "exclude", "dimensions")}
        arguments = {"kernel_sizes": self.kernel_sizes} | self.options | last
        listed = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        return f"{type(self).__name__}({listed})"

    def plan(self, model: nn.Module) -> Plan:
        """What :meth:`apply` would do to ``model``, layer by layer; changes nothing.

        Raises TypeError and ValueError where ``apply`` would refuse.
        """
        return self._plan_of(model, self._candidates(model))

    def apply(self, model: nn.Module) -> nn.Module:
        """Replaces what :meth:`plan` says, in place, and returns the model; all or nothing.

        A model that is itself a convolution is returned converted. New layers take over device,
        dtype, memory format, ``training``, requires_grad, forward and backward hooks; a layer or a
        weight used in several places stays shared. The parameters are new: make the optimiser
        afterwards. ``report`` then holds what was done. Warns if nothing is replaced.

        Raises TypeError unless ``model`` is a torch.nn.Module. Raises ValueError, before anything
        changes, for hooks on the state dict or a parameter of a layer to be replaced, for a name in
        ``exclude`` that the model lacks, and for DistributedDataParallel.
        """
        candidates = self._candidates(model)
        report = self._plan_of(model, candidates)
        chosen = [candidate for candidate in candidates if not candidate.obstacle]
        with torch.inference_mode(False):  # in which parameters could not be trained
            layers = _build(chosen, lambda candidate: self._replacement(candidate.module))
        if not chosen:  # before the exchange: where warnings are errors, it refuses
            reasons = Counter(candidate.obstacle for candidate in candidates).most_common(3)
            listed = "; ".join(f"{count} x {reason}" for reason, count in reasons)
            said = f"no convolution was replaced: {listed or 'the model has none'}"
            warnings.warn(said, stacklevel=2)
        where = [place for candidate in chosen for place in candidate.places]
        finish = attach_reg_loss if self.layer_class is BSConvS else None
        model = exchange(model, where, layers, finish)
        self.report = report
        if self.verbosity:
            print(report if self.verbosity >= 2 else report.summary)
        return model

    def _candidates(self, model: nn.Module) -> list[_Candidate]:
        check_module(model)
        check_unwrapped(model)
        if self.layer_class is BSConvS:
            check_reg_loss(model)
        everywhere = list(places(model, leaves=BLUEPRINT_LAYERS))
        excluded = excluded_modules(model, everywhere, self.exclude)
        found: dict[int, _Candidate] = {}
        for place in everywhere:
            if isinstance(place.module, (*CONVOLUTIONS, *BLUEPRINT_LAYERS)):
                found.setdefault(id(place.module), _Candidate(place.module)).places.append(place)
        for key, candidate in found.items():
            pattern = excluded.get(key)
            candidate.obstacle = (
                f"excluded by '{pattern}'" if pattern else self._obstacle(candidate)
            )
        free = [candidate.module for candidate in found.values() if not candidate.obstacle]
        for key, reason in why_tied(model, free).items():
            found[key].obstacle = reason
        for candidate in found.values():
            if not candidate.obstacle and (hooks := unmovable_hooks(candidate.module)):
                name = candidate.places[0].name
                raise ValueError(
                    f"layer '{name}' has {hooks}, which can't move to another layer: "
                    f"remove them, or keep the layer with exclude=['{name}']"
                )
        return list(found.values())

    def _obstacle(self, candidate: _Candidate) -> str:
        """Why the layer itself stays as it is; if nothing speaks against it, its stand-in."""
        layer = candidate.module
        if isinstance(layer, BLUEPRINT_LAYERS):
            return f"is {type(layer).__name__} already"
        if reason := why_not_plain(layer, dimensions=self.dimensions):
            return reason
        if self.kernel_sizes is not None and not any(
            size == layer.kernel_size or len({*size, *layer.kernel_size}) == 1
            for size in self.kernel_sizes
        ):
            return f"{_size(layer)} is not among kernel_sizes"
        candidate.stand_in = self.layer_class.like(layer, device="meta", **self.options)
        after = parameter_count(candidate.stand_in)
        if after > parameter_count(layer):
            return f"{self.layer_class.__name__} would have more parameters ({after:,})"
        return ""

    def _replacement(self, conv: Conv) -> Layer:
        """The layer that replaces ``conv``, with its first weights."""
        if self.init == "project":
            return self.layer_class.from_conv(conv, **self.options)
        if self.init == "matched":
            return match_variance_(self.layer_class.like(conv, empty=True, **self.options))
        return self.layer_class.like(conv, **self.options)

    def _plan_of(self, model: nn.Module, candidates: Sequence[_Candidate]) -> Plan:
        chosen = [candidate for candidate in candidates if not candidate.obstacle]
        planned = _build(chosen, lambda candidate: candidate.stand_in)
        layers = []
        for candidate in candidates:
            old, new = candidate.module, planned.get(id(candidate.module))
            said = f"kept: {candidate.obstacle}"
            if new is not None:
                said = f"{_size(old)} {type(old).__name__} becomes {_title(new)}"
            names = tuple(place.name for place in candidate.places)
            counts = parameter_count(old), parameter_count(old if new is None else new)
            layers.append(LayerPlan(names, new is not None, said, *counts))
        before, removed = parameter_count(model), parameter_count(*(c.module for c in chosen))
        return Plan(tuple(layers), before, before - removed + parameter_count(*planned.values()))


def _build(chosen: Sequence[_Candidate], make: Callable[[_Candidate], Layer]) -> dict[int, Layer]:
    """The new layers by the id of the old; where the old share parameters, so do the new."""
    layers: dict[int, Layer] = {}
    first_with: dict[int, Layer] = {}
    for candidate in chosen:
        conv = candidate.module
        layer = layers[id(conv)] = make(candidate)
        first = first_with.setdefault(id(conv.weight), layer)
        for name, child in layer.named_children():
            if isinstance(child, Conv):
                child.weight = first.get_submodule(name).weight  # type: ignore[assignment]
        if conv.bias is not None:
            layer.dw.bias = first_with.setdefault(id(conv.bias), layer).dw.bias
    return layers


def _size(conv: Conv) -> str:
    return "x".join(map(str, conv.kernel_size))


def _title(layer: Layer) -> str:
    if isinstance(layer, BSConvS):
        middle = layer.pw1.out_channels
        more = -(-middle // GRID) * GRID
        slow = f", in some engines slower than through {more}" if more > middle else ""
        return f"BSConv-S, {layer.in_channels} channels through {middle}{slow}"
    return "BSConv-U"


class BSConvU_Replacer(Replacer):
    """Replaces convolutions by :class:`BSConvU`.

    Args:
        kernel_sizes: which ones, as ints or tuples; None for all sizes. One whose sides are equal
            stands for that size in all ``dimensions``.
        with_bn, bn_kwargs: whether a BatchNorm follows ``pw``, and its arguments.
        verbosity: what ``apply`` prints: 0 nothing, 1 one line, 2 a line for each layer.
        init: "default" for fresh weights as PyTorch draws them, "matched" for fresh weights with
            the output variance of a Kaiming-initialised dense convolution, "project" for those
            closest to the dense weights (:meth:`BSConvU.from_conv2d`), so that a pretrained model
            keeps what it can.
        exclude: names of layers to keep, with everything inside them; ``*``, ``?`` and ``[12]`` are
            wildcards, and names of wrappers (DataParallel, torch.compile) may be left out.
        dimensions: those of the convolutions to replace: 1 for Conv1d, 2 for Conv2d, 3 for Conv3d.

    These are kept, too: subclasses of Conv2d, grouped and parametrised convolutions, those that
    share a parameter with another kind of layer or that the model also holds outside its tree of
    modules (in a list that is not a ModuleList, or a closure), and those that would get more
    parameters; :meth:`plan` says why. Raises ValueError for arguments out of range.
    """

    layer_class = BSConvU

    def __init__(
        self,
        kernel_sizes: Sequence[IntOrTuple] | None = ((3, 3), (5, 5)),
        with_bn: bool = False,
        bn_kwargs: Mapping[str, Any] | None = None,
        verbosity: int = 0,
        *,
        init: str = "default",
        exclude: Sequence[str] = (),
        dimensions: Sequence[int] = (2,),
    ) -> None:
        options = {"with_bn": with_bn, "bn_kwargs": bn_kwargs}
        super().__init__(kernel_sizes, options, verbosity, init, exclude, dimensions)


class BSConvS_Replacer(Replacer):
    """Replaces convolutions by :class:`BSConvS`, and gives the model the method ``reg_loss``.

    ``loss += model.reg_loss(alpha=0.1)`` then adds the penalty that keeps each basis close to
    orthonormal; it survives copying and saving. Copies of a torch.fx.GraphModule lose the method:
    use the function :func:`bsconv.pytorch.reg_loss`. ``p`` and ``min_mid_channels`` are those of
    :class:`BSConvS`, the other arguments those of :class:`BSConvU_Replacer`. ``apply`` also raises
    ValueError for a model that has a ``reg_loss`` of another kind.
    """

    layer_class = BSConvS

    def __init__(
        self,
        kernel_sizes: Sequence[IntOrTuple] | None = ((3, 3), (5, 5)),
        p: float | Fraction = 0.25,
        with_bn: bool = False,
        bn_kwargs: Mapping[str, Any] | None = None,
        verbosity: int = 0,
        *,
        min_mid_channels: int = 4,
        init: str = "default",
        exclude: Sequence[str] = (),
        dimensions: Sequence[int] = (2,),
    ) -> None:
        mid_channels(1, p, min_mid_channels)  # raises ValueError now, not at the first layer
        options: dict[str, Any] = {"p": p, "min_mid_channels": min_mid_channels}
        options |= {"with_bn": with_bn, "bn_kwargs": bn_kwargs}
        super().__init__(kernel_sizes, options, verbosity, init, exclude, dimensions)
