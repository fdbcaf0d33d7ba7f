"""What share of a kernel its first components explain, over many kernels."""

from collections.abc import Mapping

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ._figures import subplots
from ._parts import array_of
from ._style import COLOURS, HATCHES, looks_of

_BINS = 40


def share_histogram(
    sets: Mapping[str, ArrayLike],
    random: float | None = None,
    *,
    xlabel: str = "share of the first component",
    title: str = "",
) -> Figure:
    """How the shares, one of each kernel, are spread; a dashed line where ``random`` kernels are.

    Each of the named sets has shape (kernels,) and adds up to 100 %, whatever its size.
    """
    arrays = {name: array_of(f"sets[{name!r}]", shares, 1) for name, shares in sets.items()}
    if not arrays:
        raise ValueError("sets needs at least one set of shares, got none")
    highest = max(float(shares.max()) for shares in arrays.values())
    edges = np.linspace(0, min(1.0, 1.2 * max(highest, random or 0)), _BINS + 1)
    figure, axis = subplots()
    for index, (name, shares) in enumerate(arrays.items()):
        counts, _ = np.histogram(shares, edges)
        first, *_, last = [*np.flatnonzero(counts)] * 2
        colour = COLOURS[index % len(COLOURS)]
        axis.stairs(
            100 / len(shares) * counts[first : last + 1],
            edges[first : last + 2],
            fill=True,
            facecolor=(colour, 0.35),
            edgecolor=colour,
            linewidth=1.5,
            hatch=HATCHES[(index + 1) % len(HATCHES)],
            label=f"{name}, median {np.median(shares):.2f}",
        )
    if random is not None:
        label = f"median of random kernels, {random:.2f}"
        axis.axvline(random, color="black", linestyle="--", linewidth=2, label=label)
    axis.set(xlabel=xlabel, ylabel="kernels (%)", xlim=(0, edges[-1]), title=title)
    axis.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    axis.legend()
    return figure


def cumulative_shares(
    sets: Mapping[str, ArrayLike],
    random: ArrayLike | None = None,
    *,
    ylabel: str = "share explained by the first r",
    title: str = "",
) -> Figure:
    """What the first r components explain together: median and quartiles over the kernels.

    The sets, and ``random``, the baseline, have shape (kernels, components): shares, largest first.
    """
    arrays = {name: array_of(f"sets[{name!r}]", shares, 2) for name, shares in sets.items()}
    if not arrays:
        raise ValueError("sets needs at least one set of shares, got none")
    looks = looks_of(arrays)
    if random is not None:
        arrays["random kernels"] = array_of("random", random, 2)
        looks["random kernels"] = {"color": "black", "linestyle": "--", "marker": "x"}
    figure, axis = subplots()
    for name, shares in arrays.items():
        low, median, high = np.quantile(shares.cumsum(axis=1), (0.25, 0.5, 0.75), axis=0)
        r = np.arange(1, shares.shape[1] + 1)
        axis.plot(r, median, label=name, **looks[name])
        colour = looks[name]["color"]
        axis.fill_between(r, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.set(xlabel="components r", ylabel=ylabel, ylim=(0, 1.02), title=title)
    axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axis.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    axis.grid()
    axis.legend(loc="lower right", title="median; quartiles shaded")
    return figure
