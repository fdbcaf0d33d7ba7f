"""Which plan each BSConv layer of a model takes: whatever is the fastest, as measured."""

import copy
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._tools.convs import BatchNorm
from .._tools.model_tree import Place, exchange, places, tensors_in, watching
from .._tools.timing import in_turns, medians
from ._folding import fold_norms
from ._plans import FACTORED, blueprint_places, layer_plans, padded_plans
from ._report import OptimizedLayer
from .engines import ENGINES, Engine, Setting

LAYER_BUDGET = 0.1  # seconds of measuring for each kind of layer
CLEARLY = 0.9  # times the seconds of the factored plan, or less: more than chance
Seconds = Mapping[int, Mapping[str, float]]  # of each plan, by the id of the layer
UNCHANGED = "as it is: a subclass, hooks or other layers in it"


class Choice(NamedTuple):
    """A model without BSConv layers, as far as it can be, and what became of each."""

    model: nn.Module
    layers: tuple[OptimizedLayer, ...]


class BlueprintLayers:
    """The BSConv layers of ``model``, which is changed, with the plans for each.

    All layers stay if there is a reason, ``why_not``. Raises what a model raises that needs them.
    """

    def __init__(self, model: nn.Module, example: Tensor, why_not: str = "") -> None:
        self.example = example
        self._kept = [OptimizedLayer("", type(model).__name__, why_not, 0)] if why_not else []
        self._folded: set[int] = set() if why_not else fold_norms(model, example)
        self._places = [] if why_not else blueprint_places(model)
        self._plans = {id(place.module): layer_plans(place.module) for place in self._places}
        self._movable = [place for place in self._places if self._plans[id(place.module)]]
        self._model = exchange(model, self._movable, self._layers({}))
        self._images = _first_inputs(self._model, self._layers({}), example)
        self._others = [
            place for place in places(self._model, ()) if id(place.module) in self._folded
        ]
        self._measured: dict[tuple[str, ...], dict[str, float]] = {}

    def choices(self, engine: Engine, setting: Setting) -> list[Choice]:
        """The model with the fastest plans in ``engine``.

        All factored too, where that differs and ``engine`` cannot tell what whole networks gain:
        neighbours and compilers shift what is faster.
        """
        for plans in self._plans.values():
            plans.update(padded_plans(plans, engine.grid))
        keys = {id(place.module): place for place in self._movable}
        seconds = {key: self._seconds(place, engine, setting) for key, place in keys.items()}
        chosen = {key: _fastest(times) for key, times in seconds.items() if times}
        found = [self._choice(chosen, seconds)]
        if set(chosen.values()) - {FACTORED} and not engine.measures_layers:
            found.append(self._choice({}, seconds))
        return found

    def with_plans(self, chosen: Mapping[int, str]) -> nn.Module:
        """A copy of the model in which layers, by their ids, take these plans, others factored."""
        self._model = exchange(self._model, self._movable, self._layers(chosen))
        return copy.deepcopy(self._model).eval()

    def _layers(self, chosen: Mapping[int, str]) -> dict[int, nn.Module]:
        return {
            key: plans[chosen.get(key, FACTORED)] for key, plans in self._plans.items() if plans
        }

    def _choice(self, chosen: Mapping[int, str], seconds: Seconds) -> Choice:
        rows = (self._row(place, chosen, seconds) for place in (*self._places, *self._others))
        return Choice(self.with_plans(chosen), (*self._kept, *rows))

    def _seconds(self, place: Place, engine: Engine, setting: Setting) -> dict[str, float]:
        """Of each plan that ``engine`` can tell; once for all layers of a kind and input size."""
        if (size := self._images.get(id(place.module))) is None:
            return {}
        how = engine.build_layer.__qualname__, repr(setting), repr(place.module), repr(size)
        if how not in self._measured:
            images = torch.randn(size, generator=torch.Generator().manual_seed(0))
            images = images.to(next(place.module.parameters()).device)
            plans = self._plans[id(place.module)].items()
            calls = {name: engine.build_layer(plan, images, setting) for name, plan in plans}
            known = {name: call for name, call in calls.items() if call is not None}
            comparable = FACTORED in known and len(known) > 1
            taken = in_turns(known, images.device, budget=LAYER_BUDGET) if comparable else {}
            self._measured[how] = medians(taken)
        return self._measured[how]

    def _row(self, place: Place, chosen: Mapping[int, str], seconds: Seconds) -> OptimizedLayer:
        key, kind = id(place.module), type(place.module).__name__
        folded = int(key in self._folded)
        if plans := self._plans.get(key):
            plan = chosen.get(key, FACTORED)
            folded += sum(isinstance(part, BatchNorm) for part in place.module.children())
        else:
            plan = "one convolution" if plans is None else UNCHANGED
        return OptimizedLayer(place.name, kind, plan, folded, seconds.get(key, {}))


def _fastest(seconds: Mapping[str, float]) -> str:
    """Factored, unless another plan is faster by more than chance."""
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < CLEARLY * seconds[FACTORED] else FACTORED


def faster_setting(model: nn.Module, example: Tensor, dtype: torch.dtype) -> Setting:
    """The memory format in which eager PyTorch computes ``model`` faster."""
    if example.dim() != 4 or any(weight.dim() == 5 for weight in model.parameters()):
        return Setting(dtype)  # PyTorch has this format for tensors of four dimensions
    build, settings = ENGINES["eager"].build, [Setting(dtype, last) for last in (False, True)]
    contenders = {one: partial(build(model, example, one), example.clone()) for one in settings}
    seconds = medians(in_turns(contenders, example.device, budget=LAYER_BUDGET))
    return min(settings, key=seconds.__getitem__)


def _first_inputs(
    model: nn.Module, layers: Mapping[int, nn.Module], example: Tensor
) -> dict[int, torch.Size]:
    """The size of what each of ``layers`` is first called with; none for those that are not."""
    sizes: dict[int, torch.Size] = {}

    def note(key: int, module: nn.Module, *inputs: object) -> None:
        sizes.setdefault(key, next(tensors_in(inputs)).shape)

    notes = ((layer, partial(note, key)) for key, layer in layers.items())
    with watching(notes, before=True, with_kwargs=True):
        model(example.clone())
    return sizes
