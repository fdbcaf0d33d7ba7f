"""What a network and its layers take in each form, in the engine that will run them."""

import copy
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn
from torch.nn.utils import skip_init

from ...basics.timing import SETTLE, in_turns, medians
from ...engines import ENGINES, Prepare, in_fastest
from .._forms.form import DENSE, Form
from .._forms.plans import install
from ._study import Layer, Study

SECONDS = 1.0  # that the rounds of one kind of layer take
TURN = 0.005  # seconds that a layer runs before the next has its turn
IMAGES = 16


class Stopwatch:
    """Measures in turns, the dense network as a whole being one of the alternatives."""

    def __init__(self, study: Study) -> None:
        self.study, self.inputs = study, study.inputs.first(IMAGES)
        self.device = self.inputs.tensors()[0].device
        self.prepare, self.dense = self.network(study.model)

    @torch.no_grad()
    def network(self, model: nn.Module) -> tuple[Prepare, Callable[[], object]]:
        """What runs modules in the engine that is the fastest for ``model``, and ``model``."""
        args, kwargs = self.inputs.args, self.inputs.kwargs
        # engines take one tensor
        is_one = len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor)
        prepare: Prepare = in_fastest(ENGINES, model, *args) if is_one else partial
        return prepare, prepare(model, *args, **kwargs)

    @torch.no_grad()
    def seconds(
        self, layers: Mapping[str, Layer]
    ) -> tuple[dict[str, float], dict[str, dict[Form, float]]]:
        """Of the dense network, by the name "", and of each layer in each of its forms."""
        known: dict[object, dict[Form, float]] = {}
        costs = {}
        one = torch.ones(1, 1, 1, 1).to(next(self.study.model.parameters()))
        least: nn.Module = skip_init(nn.Conv2d, 1, 1, 1).to(one)  # type: ignore[no-untyped-call]
        nothing = self.prepare(least, one)  # what any call costs, which layers in a network save
        call = medians(in_turns({"": nothing}, self.device, budget=SECONDS / 4, turn=TURN))[""]
        for name, layer in layers.items():
            costs[name] = found = known.setdefault((repr(layer.conv), layer.consumer.shapes), {})
            images = torch.ones(len(self.inputs), *layer.consumer.shapes[0]).to(layer.conv.weight)
            forms = sorted(layer.damages.keys() - found.keys())
            runs = {form: self.prepare(_filled(form, layer), images) for form in forms}
            taken = medians(in_turns(runs, self.device, budget=SECONDS, turn=TURN))
            found |= {form: max(seconds - call, seconds / 10) for form, seconds in taken.items()}
        total = medians(in_turns({"": self.dense}, self.device, budget=SECONDS, turn=TURN))[""]
        # layers alone may take longer than in the network
        return {"": max(total, sum(seconds[DENSE] for seconds in costs.values()))}, costs

    @torch.no_grad()
    def share(self, chosen: Mapping[str, Form]) -> float:
        """What the network with these forms takes, relative to the dense one."""
        new = {name: _filled(form, self.study.layers[name]) for name, form in chosen.items()}
        student = install(copy.deepcopy(self.study.model), new).eval()
        runs = {"dense": self.dense, "student": self.network(student)[1]}
        seconds = medians(in_turns(runs, self.device, budget=SECONDS, turn=TURN, settle=SETTLE))
        return seconds["student"] / seconds["dense"]


def _filled(form: Form, layer: Layer) -> nn.Module:
    """A layer with any weights, except subnormal ones, which are slow."""
    module = form.layer(layer.conv)
    for weight in module.parameters() if form != DENSE else ():
        weight.fill_(0.01)
    return module
