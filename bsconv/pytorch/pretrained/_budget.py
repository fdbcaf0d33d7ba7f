"""How much each layer may cost: tables of forms and ranks, and the choice for a budget."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .._tools.model_tree import parameter_count
from ._allocation import allocate
from ._costs import DENSE, Form, Geometry, macs_by_layer
from ._dense import Dense
from ._inputs import Inputs
from ._rank_tables import Option, candidates, damages
from ._report import Cost
from ._timing import Prepare, seconds_of_network

KINDS = ("cp", "u", "s")
COUNTS = {"macs": "macs", "parameters": "parameters", "time": "macs"}


@dataclass(frozen=True)
class Budget:
    """What the dense network costs, and the costs and damages of all that its layers may become."""

    of: Cost
    total: float
    fixed: float  # the cost of all that no layer's form changes
    fixed_layers: tuple[str, ...]  # the costliest of that
    geometries: Mapping[str, Geometry]
    tables: Mapping[str, Sequence[Option]]

    def choose(self, share: float) -> dict[str, Option]:
        """An option for each layer within ``share`` of the total; ValueError if none is."""
        chosen = allocate(self.tables, share * self.total - self.fixed)
        if chosen is None:
            cheapest = {n: min(o.cost for o in options) for n, options in self.tables.items()}
            least = (self.fixed + sum(cheapest.values())) / self.total
            largest = sorted(cheapest, key=lambda name: -cheapest[name])[:2]
            held = ", ".join(map(repr, (*self.fixed_layers, *largest)))
            raise ValueError(
                f"budget needs at least {least:.4f}, the least share of {self.of} that this model "
                f"can come down to (held up by {held}), got budget={share}"
            )
        return chosen

    def share(self, chosen: Mapping[str, Option]) -> float:
        return (self.fixed + sum(option.cost for option in chosen.values())) / self.total


class Tables:
    """Fills the tables while the dense network runs."""

    def __init__(self, align: int, of: Cost, done: Callable[[str], object]) -> None:
        self.align, self.count, self.done = align, COUNTS[of], done
        self.of = of
        self.found: dict[str, dict[Form, float]] = {}

    def add(self, dense: Dense, name: str, patches: Tensor) -> None:
        """What each form of the layer of that name would do."""
        geometry = Geometry.of(dense.conv(name), *dense.consumers[name].geometry)
        forms = candidates(geometry, self.align, KINDS, self.count)
        self.found[name] = damages(dense, name, patches, forms)
        self.done(name)

    def budget(self, dense: Dense, inputs: Inputs, prepare: Prepare | None) -> Budget:
        geometries = {
            name: Geometry.of(dense.conv(name), *dense.consumers[name].geometry)
            for name in self.found
        }
        if self.of == "time":
            total, seconds = seconds_of_network(dense, self.found, geometries, inputs, prepare)
            costs: Any = lambda name, form: seconds[geometries[name], form]  # noqa: E731
        elif self.of == "macs":
            by_layer = macs_by_layer(dense.model, inputs)
            total = by_layer[""]
            costs = lambda name, form: geometries[name].macs(form)  # noqa: E731
        else:
            total = parameter_count(dense.model)
            costs = lambda name, form: geometries[name].parameters(form)  # noqa: E731
        tables = {
            name: [Option(form, costs(name, form), damage) for form, damage in found.items()]
            for name, found in self.found.items()
        }
        fixed = total - sum(costs(name, DENSE) for name in tables)
        return Budget(
            self.of, total, max(fixed, 0), _costliest(dense, tables, inputs), geometries, tables
        )


def _costliest(dense: Dense, changed: Mapping[str, Any], inputs: Inputs) -> tuple[str, ...]:
    leaves = {n for n, m in dense.model.named_modules() if not any(True for _ in m.children())}
    counts = {
        name: count
        for name, count in macs_by_layer(dense.model, inputs).items()
        if name in leaves and name not in changed
    }
    return tuple(sorted(counts, key=lambda name: -counts[name])[:2])
