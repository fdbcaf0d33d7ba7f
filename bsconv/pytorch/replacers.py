"""Replace the convolutions of any model by BSConv layers (paper, section 3: a drop-in)."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from ..engines import GRID
from ._tools import convs
from ._tools.convs import CONVOLUTIONS, Conv, IntOrTuple, checked_sizes, mid_channels
from ._tools.model_tree import Place, check_changeable, exchange, parameter_count, places
from ._tools.obstacles import excluded_modules, unmovable_hooks, why_not_plain, why_tied
from .initialization import match_variance_
from .modules import BLUEPRINT_LAYERS, BSConvS, BSConvU
from .plan import LayerPlan, Plan
from .regularization import attach_reg_loss, check_reg_loss

Layer = BSConvU | BSConvS


class Replacer:
    """The walk, the plan and the exchange; a subclass names the new layer."""

    layer_class: type[BSConvU] | type[BSConvS]
    report: Plan | None = None

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
        numbers = tuple(dimensions) if isinstance(dimensions, Iterable) else ()
        if not numbers or not all(convs.is_size(one) and one <= 3 for one in numbers):
            raise ValueError(f"dimensions needs some of 1, 2 and 3, got {dimensions=}")
        if init not in ("default", "matched", "project"):
            raise ValueError(f"init needs to be 'default', 'matched' or 'project', got {init=}")
        names = tuple(exclude) if isinstance(exclude, Iterable) else (exclude,)
        if isinstance(exclude, str) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"exclude needs a sequence of layer names, got {exclude=}")
        self.kernel_sizes = None if kernel_sizes is None else checked_sizes(kernel_sizes, numbers)
        self.options = dict[str, Any](with_bn=with_bn, bn_kwargs=bn_kwargs)
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
        """What :meth:`apply` would do to ``model``, layer by layer, with the same errors."""
        return self._survey(model)[0]

    def apply(self, model: nn.Module) -> nn.Module:
        """Replaces what :meth:`plan` says, in place, and returns the model; all or nothing.

        A model that is itself a convolution is returned converted. New layers take over device,
        dtype, memory format, mode, requires_grad, hooks, attributes; what is shared stays shared.
        The parameters are new: make the optimiser afterwards. ``report`` then holds what was done.
        Warns if nothing is replaced. Raises TypeError unless ``model`` is a torch.nn.Module, and
        ValueError, before anything changes, for hooks on the state dict or a parameter of a layer
        to be replaced, for unknown names in ``exclude``, and for DistributedDataParallel.
        """
        report, where = self._survey(model)
        with torch.inference_mode(False):  # in which parameters could not be trained
            layers = _build([place.module for place in where], self._replacement)
        if not where:  # before the exchange: where warnings are errors, it refuses
            reasons = Counter(layer.description.removeprefix("kept: ") for layer in report.kept)
            why = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
            line = f"no convolution was replaced: {why or 'the model has none'}"
            warnings.warn(line, stacklevel=2)
        model = exchange(model, where, layers, attach_reg_loss)
        self.report = report
        if self.verbosity:
            print(report if self.verbosity >= 2 else report.summary)
        return model

    def _survey(self, model: nn.Module) -> tuple[Plan, list[Place]]:
        """The plan, and the places of the convolutions to be replaced."""
        check_changeable(model)
        if self.layer_class is BSConvS:
            check_reg_loss(model)
        everywhere = list(places(model, leaves=BLUEPRINT_LAYERS))
        found: dict[Any, list[Place]] = {}
        for place in everywhere:
            if isinstance(place.module, (*CONVOLUTIONS, *BLUEPRINT_LAYERS)):
                found.setdefault(place.module, []).append(place)
        excluded = excluded_modules(model, everywhere, self.exclude)
        kept = {layer: f"excluded by '{excluded[layer]}'" for layer in found if layer in excluded}
        stand_ins: dict[nn.Module, Layer] = {}  # on the meta device
        for layer, (first, *_) in found.items():
            if layer not in kept and (reason := self._obstacle(first.name, layer, stand_ins)):
                kept[layer] = reason
        kept |= why_tied(model, [layer for layer in found if layer not in kept])
        chosen = [layer for layer in found if layer not in kept]
        for layer in chosen:
            if hooks := unmovable_hooks(layer):
                name = found[layer][0].name
                ways = f"remove them, or keep the layer with exclude=['{name}']"
                why = f"which can't move to another layer: {ways}"
                raise ValueError(f"layer '{name}' has {hooks}, {why}")
        planned = _build(chosen, stand_ins.__getitem__)
        plans = []
        for old, where in found.items():
            names, new = tuple(place.name for place in where), planned.get(id(old), old)
            becomes = f"{_size(old)} {type(old).__name__} becomes {_title(new)}"
            said = f"kept: {kept[old]}" if old in kept else becomes
            counts = parameter_count(old), parameter_count(new)
            plans.append(LayerPlan(names, old not in kept, said, *counts))
        before, removed = parameter_count(model), parameter_count(*chosen)
        after = before - removed + parameter_count(*planned.values())
        return Plan(tuple(plans), before, after), [place for old in chosen for place in found[old]]

    def _obstacle(self, name: str, layer: Any, stand_ins: dict[nn.Module, Layer]) -> str:
        """Why ``layer`` itself stays as it is; empty if it has got a stand-in."""
        if isinstance(layer, BLUEPRINT_LAYERS):
            return f"is {type(layer).__name__} already"
        if reason := why_not_plain(layer, dimensions=self.dimensions):
            return reason
        own, sizes = layer.kernel_size, self.kernel_sizes
        if sizes is not None and not any(size == own or len({*size, *own}) == 1 for size in sizes):
            return f"{_size(layer)} is not among kernel_sizes"
        convs.check_sizes(f"layer '{name}'", type(layer), **vars(layer))
        stand_in = stand_ins[layer] = self.layer_class.like(layer, device="meta", **self.options)
        if (after := parameter_count(stand_in)) > parameter_count(layer):
            return f"{self.layer_class.__name__} would have more parameters ({after:,})"
        return ""

    def _replacement(self, conv: Any) -> Layer:
        if self.init == "project":
            return self.layer_class.from_conv(conv, **self.options)
        if self.init == "matched":
            return match_variance_(self.layer_class.like(conv, empty=True, **self.options))
        return self.layer_class.like(conv, **self.options)


def _build(convs: Iterable[Any], make: Callable[[Any], Layer]) -> dict[int, Layer]:
    """The new layers by the id of the old; where the old share parameters, so do the new."""
    layers: dict[int, Layer] = {}
    first_with: dict[int, Layer] = {}
    for conv in dict.fromkeys(convs):
        layer = layers[id(conv)] = make(conv)
        first = first_with.setdefault(id(conv.weight), layer)
        for name, child in layer.named_children():
            if isinstance(child, Conv):
                child.weight = first.get_submodule(name).weight  # type: ignore[assignment]
        if conv.bias is not None:
            layer.dw.bias = first_with.setdefault(id(conv.bias), layer).dw.bias
    return layers


def _size(conv: Conv) -> str:
    return "x".join(map(str, conv.kernel_size))


def _title(layer: Any) -> str:
    if isinstance(layer, BSConvS):
        middle = layer.pw1.out_channels
        more = -(-middle // GRID) * GRID
        slow = f", in some engines slower than through {more}" if more > middle else ""
        return f"BSConv-S, {layer.in_channels} channels through {middle}{slow}"
    return "BSConv-U"


class BSConvU_Replacer(Replacer):
    """Replaces convolutions by :class:`BSConvU`; the model's ``reg_loss`` is zero then.

    Args:
        kernel_sizes: which ones, as ints or tuples; None for all sizes. One whose sides are equal
            stands for that size in all ``dimensions``.
        with_bn, bn_kwargs: whether a BatchNorm follows ``pw``, and its arguments.
        verbosity: what ``apply`` prints: 0 nothing, 1 one line, 2 a line for each layer.
        init: "default" for fresh weights as PyTorch draws them, "matched" for the output variance
            of a Kaiming-initialised dense convolution, "project" for those closest to the dense
            weights (:meth:`BSConvU.from_conv2d`).
        exclude: names of layers to keep, with everything inside them; ``*``, ``?`` and ``[12]`` are
            wildcards, and names of wrappers (DataParallel, torch.compile) may be left out.
        dimensions: 1 for Conv1d, 2 for Conv2d, 3 for Conv3d, or several.

    These are kept, too: subclasses of Conv2d, grouped and parametrised convolutions, those that
    share a parameter with another kind of layer or that the model also holds outside its tree of
    modules (in a list that is not a ModuleList, or a closure), and those that would get more
    parameters; :meth:`plan` says why. Raises ValueError for arguments out of range.

    >>> type(BSConvU_Replacer().apply(nn.Sequential(nn.Conv2d(16, 32, 3)))[0]).__name__
    'BSConvU'
    """

    layer_class = BSConvU


class BSConvS_Replacer(Replacer):
    """Replaces convolutions by :class:`BSConvS`, and gives the model the method ``reg_loss``.

    ``loss += model.reg_loss(alpha=0.1)`` then adds the penalty that keeps each basis close to
    orthonormal; copies of a torch.fx.GraphModule lose the method. ``p`` and ``min_mid_channels``
    are those of :class:`BSConvS`, the other arguments those of :class:`BSConvU_Replacer`. ``apply``
    also raises ValueError for a model that has a ``reg_loss`` of another kind.

    >>> model = BSConvS_Replacer(p=0.5).apply(nn.Sequential(nn.Conv2d(16, 32, 3), nn.ReLU()))
    >>> loss = model.reg_loss(alpha=0.1)
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
        last: dict[str, Any] = {"init": init, "exclude": exclude, "dimensions": dimensions}
        super().__init__(kernel_sizes, with_bn, bn_kwargs, verbosity, **last)
        self.options = {"p": p, "min_mid_channels": min_mid_channels} | self.options
