"""Which plan each BSConv layer of a model takes: whatever is the fastest, as measured."""

import copy
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ...basics.errors import described
from ...basics.timing import in_turns, medians
from ...engines import ENGINES, Engine, Setting
from .._tools.convs import BatchNorm
from .._tools.model_tree import Place, exchange, places, tensors_in, watching
from ..modules import BLUEPRINT_LAYERS
from ._folding import fold_norms
from ._plans import FACTORED, layer_plans, padded_plans
from ._report import OptimizedLayer

LAYER_BUDGET = 0.1  # seconds of measuring for each kind of layer
CLEARLY = 0.9  # times the seconds of the factored plan, or less: more than chance
Choice = tuple[nn.Module, tuple[OptimizedLayer, ...]]  # a model, and what became of its layers


class Layer:
    """A BSConv layer, with plans to compute it, or a convolution that took in a BatchNorm."""

    def __init__(self, module: nn.Module, is_folded: bool) -> None:
        self.module = module
        self.is_blueprint = isinstance(module, BLUEPRINT_LAYERS)
        self.plans = layer_plans(module) if self.is_blueprint else {}
        inside = sum(isinstance(part, BatchNorm) for part in module.children())
        self.norms_folded = is_folded + (inside if self.plans else 0)
        self.plan = FACTORED
        self.seconds: Mapping[str, float] = {}  # of each plan
        self.input_size: torch.Size | None = None  # of its first call; None: it was not called

    def note_size(self, plan: nn.Module, *inputs: object) -> None:
        if self.input_size is None:
            self.input_size = next(tensors_in(inputs)).shape

    def row(self, name: str) -> OptimizedLayer:
        unchanged = "as it is: a subclass, hooks or other layers in it"
        without_plans = unchanged if self.is_blueprint else "one convolution"
        plan, kind = self.plan if self.plans else without_plans, type(self.module).__name__
        return OptimizedLayer(name, kind, plan, self.norms_folded, self.seconds)


class Layers:
    """The layers of a copy of ``given`` that change; none in a model that needs their parts."""

    _places: list[Place]
    _layers: dict[int, Layer]

    def __init__(self, given: nn.Module, example: Tensor) -> None:
        self.example = example
        self._measured: dict[tuple[str, ...], Mapping[str, float]] = {}
        try:
            self._exchange(copy.deepcopy(given).eval())
        except Exception as error:  # of the many that models raise
            why_not = f"as it is, since it needs parts of its layers: {described(error)}"
            self._rest = [OptimizedLayer("", type(given).__name__, why_not, 0)]
            self._model, self._places, self._layers = copy.deepcopy(given).eval(), [], {}

    def _exchange(self, model: nn.Module) -> None:
        folded = fold_norms(model, self.example)
        everywhere = list(places(model, BLUEPRINT_LAYERS))
        blueprints = [one for one in everywhere if isinstance(one.module, BLUEPRINT_LAYERS)]
        convs = [one for one in everywhere if id(one.module) in folded and one not in blueprints]
        self._model, self._places, self._rest = model, blueprints + convs, []
        modules = {id(place.module): place.module for place in self._places}
        self._layers = {key: Layer(module, key in folded) for key, module in modules.items()}
        self.model()
        notes = [(one.plans[FACTORED], one.note_size) for one in self._layers.values() if one.plans]
        with watching(notes, before=True, with_kwargs=True):
            self._model(self.example.clone())

    def model(self) -> nn.Module:
        """A copy of the model with the present plans."""
        plans = {key: one.plans[one.plan] for key, one in self._layers.items() if one.plans}
        movable = (place for place in self._places if id(place.module) in plans)
        self._model = exchange(self._model, movable, plans)
        return copy.deepcopy(self._model).eval()

    def choices(self, engine: Engine, setting: Setting) -> list[Choice]:
        """With the fastest plans in ``engine``; also all factored if it cannot measure layers."""
        for layer in self._layers.values():
            layer.plans |= padded_plans(layer.plans, engine.grids)
            layer.seconds = self._seconds(layer, engine, setting)
            layer.plan = _fastest(layer.seconds)
        found = [self._choice()]
        changed = [layer for layer in self._layers.values() if layer.plan != FACTORED]
        if changed and not engine.measures_layers:
            for layer in changed:
                layer.plan = FACTORED
            found.append(self._choice())
        return found

    def _choice(self) -> Choice:
        rows = [self._layers[id(place.module)].row(place.name) for place in self._places]
        return self.model(), (*self._rest, *rows)

    def _seconds(self, layer: Layer, engine: Engine, setting: Setting) -> Mapping[str, float]:
        """Of each plan that ``engine`` can tell; once for all layers of a kind and input size."""
        if (size := layer.input_size) is None:
            return {}
        name = engine.name if engine.measures_layers else "eager"
        how = name, repr((setting, layer.module, size))
        if how not in self._measured:
            images = torch.randn(size, generator=torch.Generator().manual_seed(0))
            images = images.to(next(layer.module.parameters()).device)
            plans = layer.plans.items()
            calls = {name: engine.build_layer(plan, images, setting) for name, plan in plans}
            known = {name: call for name, call in calls.items() if call is not None}
            comparable = FACTORED in known and len(known) > 1
            taken = in_turns(known, images.device, budget=LAYER_BUDGET) if comparable else {}
            self._measured[how] = medians(taken)
        return self._measured[how]


def _fastest(seconds: Mapping[str, float]) -> str:
    """Factored, unless another plan is faster by more than chance."""
    best = min(seconds, key=seconds.__getitem__, default=FACTORED)
    return best if seconds and seconds[best] < CLEARLY * seconds[FACTORED] else FACTORED


def faster_setting(model: nn.Module, example: Tensor, dtype: torch.dtype) -> Setting:
    """The memory format in which eager PyTorch computes ``model`` faster."""
    if example.dim() != 4 or any(weight.dim() == 5 for weight in model.parameters()):
        return Setting(dtype)  # PyTorch has this format for tensors of four dimensions
    build, settings = ENGINES["eager"].build, [Setting(dtype, last) for last in (False, True)]
    contenders = {one: partial(build(model, example, one), example.clone()) for one in settings}
    try:
        seconds = medians(in_turns(contenders, example.device, budget=LAYER_BUDGET))
    except Exception:  # of the many that models raise in another dtype, which engines say again
        return settings[0]
    return min(settings, key=seconds.__getitem__)
