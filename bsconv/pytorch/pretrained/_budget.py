"""How much each layer may cost: tables of forms and ranks, and the choice for a budget."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from .._tools.model_tree import parameter_count
from ._allocation import allocate
from ._costs import DENSE, Form, macs_by_layer
from ._dense import Dense
from ._rank_tables import Option, candidates, damages
from ._report import Cost
from ._timing import Prepare, measured_seconds

HELD_UP_BY = 3  # layers that are named where a budget can't be reached


@dataclass(frozen=True)
class Budget:
    """What the dense network costs, and the costs and damages of all that its layers may become."""

    of: Cost
    total: float
    fixed: float  # the cost of all that no layer's form changes
    fixed_by_layer: Mapping[str, float]  # as far as it belongs to a layer
    tables: Mapping[str, Sequence[Option]]

    def choose(self, budget: float) -> dict[str, Option]:
        """An option for each layer, all within that share of the total; ValueError if none is."""
        chosen = self.within(budget)
        if chosen is None:
            raise ValueError(self._refusal(budget))
        return chosen

    def within(self, budget: float) -> dict[str, Option] | None:
        """The same; None if there is none."""
        return allocate(self.tables, budget * self.total - self.fixed)

    def share(self, chosen: Mapping[str, Option]) -> float:
        """What the network costs then, of what it costs dense."""
        return (self.fixed + sum(option.cost for option in chosen.values())) / self.total

    def _refusal(self, budget: float) -> str:
        least = {name: min(o.cost for o in options) for name, options in self.tables.items()}
        share = (self.fixed + sum(least.values())) / self.total
        costs = {**self.fixed_by_layer, **least}
        named = sorted(costs, key=lambda name: -costs[name])[:HELD_UP_BY]
        return (
            f"budget needs at least {share:.4f}, the least share of the {self.of} that this model "
            f"can have ({', '.join(map(repr, named))} hold it up), got budget={budget}"
        )


class TableMaker:
    """Fills a table for each layer, one by one, while the dense network runs."""

    def __init__(self, of: Cost, align: int, done: Callable[[str], object]) -> None:
        self.of = of
        self.align = align
        self.done = done
        self.damages: dict[str, dict[Form, float]] = {}

    def add(self, dense: Dense, name: str, patches: Tensor) -> None:
        """What each form of the layer of that name would do to the answer."""
        forms = candidates(dense.geometry(name), self.align, by_macs=self.of != "parameters")
        self.damages[name] = damages(dense, name, patches, forms)
        self.done(name)

    def budget(self, dense: Dense, prepare: Prepare | None) -> Budget:
        """With what all forms cost."""
        geometries = {name: dense.geometry(name) for name in self.damages}
        fixed: Mapping[str, float] = {}
        if self.of == "time":
            total, costs = measured_seconds(dense, self.damages, prepare)
        elif self.of == "macs":
            fixed = macs_by_layer(dense.model, dense.inputs)
            total = fixed[""]
            costs = {n: {f: g.macs(f) for f in self.damages[n]} for n, g in geometries.items()}
        else:
            fixed = {n: parameter_count(m) for n, m in dense.model.named_modules()}
            total = parameter_count(dense.model)
            costs = {
                n: {f: g.parameters(f) for f in self.damages[n]} for n, g in geometries.items()
            }
        tables = {
            name: [Option(form, costs[name][form], damage) for form, damage in forms.items()]
            for name, forms in self.damages.items()
        }
        rest = total - sum(costs[name][DENSE] for name in tables)
        return Budget(self.of, total, max(rest, 0), _leaves(dense, fixed, tables), tables)


def _leaves(
    dense: Dense, costs: Mapping[str, float], without: Iterable[str]
) -> Mapping[str, float]:
    """The costs of modules that have none inside, apart from some."""
    leaves = {n for n, m in dense.model.named_modules() if not any(True for _ in m.children())}
    return {name: costs[name] for name in costs.keys() & leaves - set(without)}
