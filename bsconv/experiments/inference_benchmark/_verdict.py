"""Which network is the fastest, said only where the measurements tell it."""

from __future__ import annotations

from collections.abc import Sequence

from ._measurement import DENSE, Measurement


def verdict(rows: Sequence[Measurement]) -> str:
    """Each network at its best, for each batch size; sizes with the same outcome go together.

    The fastest is told from another if the middle halves of their rounds do not overlap.
    """
    bests = [_bests(rows, size) for size in dict.fromkeys(row.batch_size for row in rows)]
    if all(len(best) == 1 for best in bests):
        return "; ".join(_alone(best[0]) for best in bests)
    outcomes: dict[tuple[str, str], list[tuple[int, float]]] = {}  # batch sizes and gains
    for best in bests:
        fastest = _fastest(best)
        rival = _rival([one for one in best if one not in fastest])
        names = " and ".join(one.called for one in fastest)
        names += " is" if len(fastest) == 1 else " are, within the spread of one another,"
        gain = rival.median / best[0].median if rival else 0.0
        outcome = names, rival.called if rival else ""
        outcomes.setdefault(outcome, []).append((best[0].batch_size, gain))
    once = all(len(row.seconds) == 1 for row in rows)
    caution = ", in a single round, which has no spread" if once else ""
    return "; ".join(_outcome(*key, sizes) for key, sizes in outcomes.items()) + caution


def _bests(rows: Sequence[Measurement], batch_size: int) -> list[Measurement]:
    """Each network in its faster treatment, the fastest network first."""
    best: dict[str, Measurement] = {}
    for row in rows:
        if row.batch_size == batch_size:
            best[row.network] = min(best.get(row.network, row), row, key=lambda one: one.median)
    return sorted(best.values(), key=lambda one: one.median)


def _fastest(bests: Sequence[Measurement]) -> list[Measurement]:
    """The first and all that cannot be told from it."""
    first, *others = bests
    return [first, *(one for one in others if one.spread[0] <= first.spread[1])]


def _rival(slower: Sequence[Measurement]) -> Measurement | None:
    """What the fastest is compared with: the dense network, or else the next."""
    dense = (one for one in slower if one.network == DENSE)
    return next(dense, slower[0] if slower else None)


def _outcome(names: str, rival: str, sizes: Sequence[tuple[int, float]]) -> str:
    batches = " and ".join(str(size) for size, _ in sizes)
    line = f"{names} the fastest with batches of {batches}"
    gains = " and ".join(f"{gain:.2f}" for _, gain in sizes)
    return f"{line}, {gains} times as fast as {rival}" if rival else line


def _alone(row: Measurement) -> str:
    return f"{row.called} takes {1e3 * row.median:.2f} ms with batches of {row.batch_size}"
