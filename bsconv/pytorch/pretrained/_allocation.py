"""One option for each layer, so that all together cost no more than a budget and lose little."""

from collections.abc import Mapping, Sequence

from ._rank_tables import Option

HALVINGS = 100


def allocate(tables: Mapping[str, Sequence[Option]], budget: float) -> dict[str, Option] | None:
    """Options whose costs add up to ``budget`` at most, with nearly the least damage in all.

    A price on cost decides, the lowest that the budget allows (Lagrange's multiplier); what is left
    over goes to the layers that gain most by it. None if even the cheapest options cost more.
    """

    def at(price: float) -> dict[str, Option]:
        def loss(option: Option) -> tuple[float, float]:
            return option.damage + price * option.cost, option.cost

        return {name: min(options, key=loss) for name, options in tables.items()}

    cheapest = {name: min(options, key=lambda o: o.cost) for name, options in tables.items()}
    if _cost(cheapest) > budget:
        return None
    free = at(0.0)
    if _cost(free) <= budget:
        return free
    low, high = 0.0, 1.0
    while _cost(at(high)) > budget and high < 1e30:
        high *= 10
    chosen = at(high) if _cost(at(high)) <= budget else cheapest
    for _ in range(HALVINGS):
        price = (low * high) ** 0.5 if low else high / 1e3
        if high - low <= 1e-9 * high:
            break
        trial = at(price)
        if _cost(trial) <= budget:
            chosen, high = trial, price
        else:
            low = price
    return _filled(tables, chosen, budget)


def _filled(
    tables: Mapping[str, Sequence[Option]], chosen: dict[str, Option], budget: float
) -> dict[str, Option]:
    """With what is left of the budget spent where it takes away most of the damage."""
    chosen = dict(chosen)
    while True:
        left = budget - _cost(chosen)
        gains = [
            (chosen[name].damage - option.damage, name, option)
            for name, options in tables.items()
            for option in options
            if option.damage < chosen[name].damage and option.cost - chosen[name].cost <= left
        ]
        if not gains:
            return chosen
        _, name, option = max(gains, key=lambda gain: gain[0])
        chosen[name] = option


def _cost(chosen: Mapping[str, Option]) -> float:
    return sum(option.cost for option in chosen.values())
