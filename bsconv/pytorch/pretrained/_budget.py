"""What a network costs with each layer in each form, and the choice of forms for a budget."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .._forms.form import DENSE, Form
from .._tools.model_tree import parameter_count
from ._report import BudgetPoint, Cost
from ._stopwatch import Stopwatch
from ._study import Layer, Study

# shares of the cost of the dense layer for which there is a rank
SHARES = (0.05, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.36, 0.44, 0.54, 0.66, 0.8)
FEW_SHARES = (0.08, 0.16, 0.3)  # for BSConv-S, which is seldom chosen
WIDE = 100  # input channels from which on there are fewer ranks, and no BSConv-U and -S
UNITS = 20_000  # in which budgets are shared out
HELD_UP_BY = 3  # layers that are named where a budget can't be reached
ATTEMPTS = 6  # at forms of which the network as a whole takes the time that was asked for
CLOSE = 0.03  # relative to that time
TOLERANCE = 0.1  # above it

Costs = Mapping[str, Mapping[Form, float]]  # of layers in each form, by their names


def candidates(layer: Layer, align: int, of: Cost) -> list[Form]:
    """Forms that cost less than the dense layer, ranks being multiples of ``align``."""
    cost, conv = partial(layer.cost, of=of), layer.conv
    limit, planar = cost(DENSE), isinstance(conv, nn.Conv2d)
    narrow = conv.in_channels <= WIDE or not planar
    forms = [Form("u")] if narrow else []
    few, many = FEW_SHARES if narrow else (), SHARES[:: 2 - narrow] if planar else ()
    for kind, shares in (("s", few), ("cp", many)):
        one = cost(Form(kind, 2)) - cost(Form(kind, 1))
        fixed = cost(Form(kind, 1)) - one
        ranks = {max(1, round((share * limit - fixed) / one / align)) * align for share in shares}
        most = min(conv.in_channels, conv.out_channels) if kind == "s" else limit
        forms += [Form(kind, rank) for rank in sorted(ranks) if rank < most]
    return [form for form in forms if cost(form) < limit]


@dataclass(frozen=True)
class Budget:
    """What a dense network costs, and what all forms of its layers cost."""

    original: nn.Module  # of which the study has a copy
    study: Study
    of: Cost
    total: float
    fixed: float  # the cost of all that no layer's form changes
    fixed_by_layer: Mapping[str, float]
    costs: Costs
    stopwatch: Stopwatch | None  # of time
    options: Mapping[str, Any]  # with which the network was looked at

    def is_of(self, model: nn.Module) -> bool:
        """Whether this is the network as it was."""
        states = (one.state_dict().values() for one in (model, self.study.model))
        now, then = ([each for each in state if isinstance(each, Tensor)] for state in states)
        kinds = [[(each.dtype, each.device) for each in held] for held in (now, then)]
        return self.original is model and kinds[0] == kinds[1] and all(map(torch.equal, now, then))

    def choose(self, budget: float) -> dict[str, Form] | None:
        """A form for each layer, all within that share of the total; None if there is none."""
        damages = {name: self.study.layers[name].damages for name in self.costs}
        return allocate(self.costs, damages, budget * self.total - self.fixed)

    def settle(self, budget: float) -> tuple[dict[str, Form], float]:
        """The choice, and its share; of time, that of the network as a whole, not of its layers."""
        if self.stopwatch is None:
            if (chosen := self.choose(budget)) is None:
                raise self.refusal(budget)
            return chosen, self.point(budget, chosen).share
        cheapest = {name: min(own, key=lambda form: own[form]) for name, own in self.costs.items()}
        aim, below, above = budget, (0.0, 0.0), (1.0, 1.0)  # aims, and the shares that they gave
        tried: list[tuple[float, dict[str, Form]]] = []
        for _ in range(ATTEMPTS):
            chosen = self.choose(aim) or cheapest
            share = self.stopwatch.share(chosen)
            tried.append((share, chosen))
            if abs(share / budget - 1) <= CLOSE or (share > budget and chosen == cheapest):
                break
            below, above = ((aim, share), above) if share < budget else (below, (aim, share))
            slope = (above[0] - below[0]) / max(above[1] - below[1], 1e-9)
            aim = min(max(below[0] + slope * (budget - below[1]), 0.0), 1.0)
        # the best first, measured again, since it may have been close by chance
        tried.sort(key=lambda one: (one[0] > budget * (1 + CLOSE), abs(one[0] - budget)))
        shares = []
        for chosen in (*(chosen for _, chosen in tried), cheapest):
            shares.append(self.stopwatch.share(chosen))
            if shares[-1] <= budget * (1 + TOLERANCE):
                return chosen, shares[-1]
        raise self.refusal(budget, min(shares))

    def point(self, budget: float, chosen: Mapping[str, Form]) -> BudgetPoint:
        cost = self.fixed + sum(self.costs[name][form] for name, form in chosen.items())
        damage = sum(self.study.layers[name].damages[form] for name, form in chosen.items())
        forms = {name: str(form) for name, form in chosen.items()}
        return BudgetPoint(budget, cost / self.total, damage, forms)

    def refusal(self, budget: float, measured: float | None = None) -> ValueError:
        """The error for a budget that can't be reached."""
        least = {name: min(costs.values()) for name, costs in self.costs.items()}
        share = measured or (self.fixed + sum(least.values())) / self.total
        costs = {**self.fixed_by_layer, **least}
        largest = sorted(costs, key=lambda name: -costs[name])[:HELD_UP_BY]
        return ValueError(
            f"budget needs at least {share:.4f}, the least share of the {self.of} that this model "
            f"can have ({', '.join(map(repr, largest))} hold it up), got budget={budget}"
        )


def budget_of(original: nn.Module, study: Study, of: Cost, options: Mapping[str, Any]) -> Budget:
    """What all forms of a study's layers cost."""
    layers = {name: layer for name, layer in study.layers.items() if layer.damages}
    modules = dict(study.model.named_modules())
    stopwatch = Stopwatch(study) if of == "time" else None
    if stopwatch:
        counts, costs = stopwatch.seconds(layers)
    else:
        by_name = {name: float(parameter_count(module)) for name, module in modules.items()}
        counts = _macs(study) if of == "macs" else by_name
        costs = {n: {form: x.cost(form, of) for form in x.damages} for n, x in layers.items()}
    total = counts[""]
    if not total:
        raise ValueError(f"budget needs a model that costs {of}, got one that costs none")
    leaves = [name for name, module in modules.items() if name in counts and not module._modules]
    fixed = {name: counts[name] for name in leaves if name not in layers}
    rest = max(total - sum(own[DENSE] for own in costs.values()), 0)
    return Budget(original, study, of, total, rest, fixed, costs, stopwatch, options)


def allocate(costs: Costs, damages: Costs, budget: float) -> dict[str, Form] | None:
    """Forms whose costs add up to ``budget`` at most, with the least damage in all.

    What is left after each layer's cheapest form is shared out in units, layer by layer (dynamic
    programming); costs are rounded up to units. None if even the cheapest forms cost more.
    """
    chosen = {n: min(own, key=lambda f: (damages[n][f], own[f])) for n, own in costs.items()}
    if sum(costs[name][form] for name, form in chosen.items()) <= budget:
        return chosen
    least = {name: min(own.values()) for name, own in costs.items()}
    spare = budget - sum(least.values())
    if spare < 0:
        return None

    def units(name: str, form: Form) -> int:
        more = costs[name][form] - least[name]
        if more > spare:
            return UNITS + 1
        return math.ceil(more / spare * UNITS) if more > 0 else 0

    lost = torch.zeros(UNITS + 1, dtype=torch.float64)  # by the units that may be spent
    choices: dict[str, Tensor] = {}
    for name, own in costs.items():
        trials = torch.full((len(own), UNITS + 1), math.inf, dtype=torch.float64)
        for trial, form in zip(trials, own, strict=True):
            used = units(name, form)
            trial[used:] = lost[: UNITS + 1 - used] + damages[name][form]
        lost, choices[name] = trials.min(0)
    left = UNITS
    for name in reversed(choices):
        chosen[name] = list(costs[name])[int(choices[name][left])]
        left -= units(name, chosen[name])
    return chosen


@torch.no_grad()
def _macs(study: Study) -> dict[str, float]:
    """Of the model ("") and of all modules inside it, for one image."""
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton

    with FlopCounterMode(display=False) as counter:
        study.inputs.first(1).run(study.model)
    counts = {name: sum(by_op.values()) // 2 for name, by_op in counter.get_flop_counts().items()}
    root = f"{type(study.model).__name__}."
    inside = {name.removeprefix(root): n for name, n in counts.items() if name.startswith(root)}
    return {**inside, "": counts.get("Global", 0)}
