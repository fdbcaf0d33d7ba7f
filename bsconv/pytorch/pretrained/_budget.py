"""How much each layer may cost: tables of forms and ranks, and the choice for a budget."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .._tools.model_tree import parameter_count
from .._tools.timing import in_turns, medians
from ._forms import DENSE, Form, Geometry
from ._options import Cost, Prepare
from ._study import Layer, Study

# shares of the cost of the dense layer for which there is a rank
SHARES = (0.05, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.36, 0.44, 0.54, 0.66, 0.8)
FEW_SHARES = (0.08, 0.16, 0.3)  # for BSConv-S, which is seldom chosen
WIDE = 100  # input channels from which on there are fewer ranks, and no BSConv-U and -S
UNITS = 20_000  # in which budgets are shared out
HELD_UP_BY = 3  # layers that are named where a budget can't be reached
SECONDS = 1.0  # that the rounds of one geometry take
TURN = 0.005  # seconds that a layer runs before the next has its turn
TIMED_IMAGES = 16


def candidates(geometry: Geometry, align: int, *, by_macs: bool) -> list[Form]:
    """Forms that cost less than the dense layer, ranks being multiples of ``align``."""
    cost = geometry.macs if by_macs else geometry.parameters
    limit, planar = cost(DENSE), geometry.dimensions == 2
    narrow = geometry.inputs <= WIDE or not planar
    forms = [Form("u")] if narrow else []
    few, many = FEW_SHARES if narrow else (), SHARES[:: 2 - narrow] if planar else ()
    for kind, shares in (("s", few), ("cp", many)):
        one = cost(Form(kind, 2)) - cost(Form(kind, 1))
        fixed = cost(Form(kind, 1)) - one
        ranks = {max(1, round((share * limit - fixed) / one / align)) * align for share in shares}
        most = min(geometry.inputs, geometry.outputs) if kind == "s" else limit
        forms += [Form(kind, rank) for rank in sorted(ranks) if rank < most]
    return [form for form in forms if cost(form) < limit]


class Option(NamedTuple):
    """A form that a layer can have."""

    form: Form
    cost: float
    damage: float


@dataclass(frozen=True)
class Budget:
    """What the dense network costs, and the costs and damages of all that its layers may become."""

    of: Cost
    total: float
    fixed_by_layer: Mapping[str, float]  # of modules whose form does not change
    tables: Mapping[str, Sequence[Option]]

    @property
    def fixed(self) -> float:
        """The cost of all that no layer's form changes."""
        dense = (o.cost for options in self.tables.values() for o in options if o.form == DENSE)
        return max(self.total - sum(dense), 0)

    def within(self, budget: float) -> dict[str, Option] | None:
        """An option for each layer, all within that share of the total; None if there is none."""
        return allocate(self.tables, budget * self.total - self.fixed)

    def choose(self, budget: float) -> dict[str, Option]:
        """The same; ValueError if there is none."""
        chosen = self.within(budget)
        if chosen is not None:
            return chosen
        least = {name: min(o.cost for o in options) for name, options in self.tables.items()}
        share = (self.fixed + sum(least.values())) / self.total
        costs = {**self.fixed_by_layer, **least}
        named = sorted(costs, key=lambda name: -costs[name])[:HELD_UP_BY]
        raise ValueError(
            f"budget needs at least {share:.4f}, the least share of the {self.of} that this model "
            f"can have ({', '.join(map(repr, named))} hold it up), got budget={budget}"
        )

    def share(self, chosen: Mapping[str, Option]) -> float:
        """What the network costs then, of what it costs dense."""
        return (self.fixed + sum(option.cost for option in chosen.values())) / self.total


def budget_of(study: Study, of: Cost, prepare: Prepare | None) -> Budget:
    """What all forms of a study's tables cost."""
    layers = {name: layer for name, layer in study.layers.items() if layer.damages}
    if of == "time":
        total, costs = _measured_seconds(study, layers, prepare)
        by_module: Mapping[str, float] = {}
    else:
        cost = Geometry.macs if of == "macs" else Geometry.parameters
        by_module = (_macs if of == "macs" else _parameters)(study)
        total = by_module[""]
        costs = {n: {f: cost(x.geometry, f) for f in x.damages} for n, x in layers.items()}
    if not total:
        raise ValueError(f"budget needs a model that costs {of}, got one that costs none")
    leaves = {n for n, m in study.model.named_modules() if not any(True for _ in m.children())}
    fixed = {name: by_module[name] for name in by_module.keys() & leaves - layers.keys()}
    tables = {
        name: [Option(form, costs[name][form], damage) for form, damage in layer.damages.items()]
        for name, layer in layers.items()
    }
    return Budget(of, total, fixed, tables)


def allocate(tables: Mapping[str, Sequence[Option]], budget: float) -> dict[str, Option] | None:
    """Options whose costs add up to ``budget`` at most, with the least damage in all.

    What is left after each layer's cheapest option is shared out in units, layer by layer, with
    the best for each number of units (dynamic programming); costs are rounded up to units. None if
    even the cheapest options cost more.
    """
    best = {
        name: min(options, key=lambda o: (o.damage, o.cost)) for name, options in tables.items()
    }
    if sum(option.cost for option in best.values()) <= budget:
        return best
    least = {name: min(option.cost for option in options) for name, options in tables.items()}
    spare = budget - sum(least.values())
    if spare < 0:
        return None

    def units(name: str, option: Option) -> int:
        more = option.cost - least[name]
        if more > spare:
            return UNITS + 1
        return math.ceil(more / spare * UNITS) if more > 0 else 0

    damages = torch.zeros(UNITS + 1, dtype=torch.float64)  # by the units that may be spent
    choices: dict[str, Tensor] = {}
    for name, options in tables.items():
        trials = torch.full((len(options), UNITS + 1), math.inf, dtype=torch.float64)
        for trial, option in zip(trials, options, strict=True):
            used = units(name, option)
            trial[used:] = damages[: max(UNITS + 1 - used, 0)] + option.damage
        damages, choices[name] = trials.min(0)
    chosen: dict[str, Option] = {}
    left = UNITS
    for name in reversed(list(tables)):
        chosen[name] = tables[name][int(choices[name][left])]
        left -= units(name, chosen[name])
    return {name: chosen[name] for name in tables}


def _parameters(study: Study) -> dict[str, int]:
    return {name: parameter_count(module) for name, module in study.model.named_modules()}


@torch.no_grad()
def _macs(study: Study) -> dict[str, int]:
    """Multiply-accumulates for one image, of the model ("") and of all modules inside it."""
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton

    with FlopCounterMode(display=False) as counter:
        study.inputs.first(1).run(study.model)
    counts = {name: sum(by_op.values()) // 2 for name, by_op in counter.get_flop_counts().items()}
    root = type(study.model).__name__
    inside = {n.removeprefix(f"{root}."): c for n, c in counts.items() if n.startswith(f"{root}.")}
    return {**inside, "": counts.get("Global", 0)}


@torch.no_grad()
def _measured_seconds(
    study: Study, layers: Mapping[str, Layer], prepare: Prepare | None
) -> tuple[float, dict[str, dict[Form, float]]]:
    """Those of the dense network, and of each layer in each form of its table.

    ``prepare(module, *inputs)`` returns what runs the module once, in the engine of choice; without
    it, modules run as they are. Layers of one geometry are measured once.
    """
    prepare = prepare or partial
    inputs = study.inputs.first(TIMED_IMAGES)
    device = inputs.tensors()[0].device
    whole = prepare(study.model, *inputs.args, **inputs.kwargs)
    known: dict[Geometry, dict[Form, float]] = defaultdict(dict)
    for layer in layers.values():
        measured, conv = known[layer.geometry], layer.conv
        images = torch.ones(len(inputs), *layer.consumer.geometry[0]).to(conv.weight)
        runs = {}
        for form in sorted(layer.damages.keys() - measured.keys()):
            module = form.layer(conv)
            if module is not conv:
                for weight in module.parameters():
                    weight.fill_(0.01)  # any numbers do, except subnormal ones, which are slow
            runs[form] = prepare(module, images)
        measured |= medians(in_turns(runs, device, budget=SECONDS, turn=TURN))
    total = medians(in_turns({"": whole}, device, budget=SECONDS, turn=TURN))[""]
    costs = {name: known[layer.geometry] for name, layer in layers.items()}
    # on a busy machine the layers alone may take longer than the network
    return max(total, sum(seconds[DENSE] for seconds in costs.values())), costs
