"""First shares layer by layer, and how far they lie above those of random kernels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ._figures import COLOURS, MARKERS, WIDTH, grid_below, new_figure, panels_of

_BOXES = 40  # more than this on a figure are too thin for boxes
_NAMES = 40  # more names than this on a figure overlap
_LONGEST = 20  # characters of a name
_RANDOM: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1.2}


def layer_boxes(
    layers: Mapping[str, ArrayLike],
    random: ArrayLike,
    excess: Mapping[str, ArrayLike] | None = None,
    *,
    ylabel: str = "first share",
    title: str = "",
) -> Figure:
    """For each layer a box of its filters' shares, and a dash where ``random`` kernels are.

    ``layers`` holds shares of shape (N,), ``random`` one number for each layer. Whiskers span from
    the 5th to the 95th percentile. More than 40 layers are drawn as one band from quartile to
    quartile. ``excess``, in a second panel, is how far the medians of layers lie above ``random``:
    by name, such as "within kernels", one number for each layer, or NaN.
    """
    arrays = {name: np.asarray(shares, dtype=float) for name, shares in layers.items()}
    figure = new_figure()
    if excess is None:
        axis = figure.subplots()
        _draw_layers(axis, arrays, random, wide=WIDTH)
    else:
        axis, right = figure.subplots(1, 2, width_ratios=(3, 1))
        _draw_layers(axis, arrays, random, wide=0.7 * WIDTH)
        _draw_excess(right, excess)
    axis.set_ylabel(ylabel)
    figure.suptitle(title)
    return figure


def excess_panels(networks: Mapping[str, Mapping[str, ArrayLike]], *, title: str = "") -> Figure:
    """A panel for each network: how far its layers lie above random kernels, side by side.

    ``networks[name]`` holds two or more lists of one number for each layer, such as "within
    kernels" and "across kernels". A line joins the dots of a layer, a black bar stands at the
    median, which is written below. All panels have one scale. NaN stands for a layer without one.
    """
    figure, axes = panels_of(networks, title, fontsize=9, sharey=True)
    for name, axis in axes.items():
        _draw_excess(axis, networks[name], joined=True)
        axis.set_title(name, fontsize=9)
        grid_below(axis, "y")
    figure.axes[0].set_ylabel("median first share - random")
    return figure


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _draw_excess(axis: Axes, excess: Mapping[str, ArrayLike], joined: bool = False) -> None:
    labels = []
    if joined:
        layers = np.array(list(excess.values()), dtype=float)
        axis.plot(layers, "-", color="#BBBBBB", marker="", linewidth=0.8)
    for at, (name, values) in enumerate(excess.items()):
        numbers = _finite(np.asarray(values, dtype=float))
        spread = 0 if joined or len(numbers) == 1 else np.linspace(-0.12, 0.12, len(numbers))
        colour, marker = COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]
        axis.plot(at + spread + 0 * numbers, numbers, marker, color=colour, markersize=3)
        middle = float(np.median(numbers)) if len(numbers) else np.nan
        axis.plot([at - 0.3, at + 0.3], [middle, middle], "-", color="black", marker="")
        labels.append("\n".join([*name.split(), f"{middle:+.2f}" if len(numbers) else "none"]))
    axis.axhline(0, **_RANDOM)
    axis.set_xticks(range(len(excess)), labels)
    axis.set_xlim(-0.5, len(excess) - 0.5)
    axis.set_title("median - random", fontsize=9)
    axis.yaxis.set_major_formatter("{x:+.1f}")


def _draw_layers(
    axis: Axes, layers: Mapping[str, NDArray[np.float64]], random: ArrayLike, wide: float
) -> None:
    at = np.arange(len(layers))
    if len(layers) <= _BOXES * wide / WIDTH:
        drawn = axis.boxplot(
            list(layers.values()),
            positions=at,
            whis=(5, 95),
            widths=0.6,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": COLOURS[5], "edgecolor": COLOURS[0]},
            medianprops={"color": COLOURS[0], "linewidth": 2},
            whiskerprops={"color": COLOURS[0]},
            capprops={"color": COLOURS[0]},
            manage_ticks=False,
        )
        drawn["boxes"][0].set_label("filters: quartiles, median")
        look = _RANDOM | {"linestyle": "-", "linewidth": 2}
        axis.hlines(random, at - 0.42, at + 0.42, label="random kernels", **look)
    else:
        quartiles = [np.quantile(shares, (0.25, 0.5, 0.75)) for shares in layers.values()]
        low, median, high = np.transpose(quartiles)
        axis.fill_between(at, low, high, color=COLOURS[5], linewidth=0, label="quartiles")
        axis.plot(at, median, color=COLOURS[0], linestyle="-", marker="", label="median")
        axis.plot(at, random, marker="", label="random kernels", **_RANDOM)
    _name_layers(axis, list(layers), wide)
    axis.set(ylim=(0, 1))
    axis.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    grid_below(axis, "y")
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8)


def _name_layers(axis: Axes, names: Sequence[str], wide: float) -> None:
    """Names below the axis, ``wide`` inches: upright, shortened, and only as many as fit."""
    every = -(-len(names) // max(1, int(_NAMES * wide / WIDTH)))
    at = range(0, len(names), every)
    axis.set_xticks(at, _shortened(names)[::every], rotation=90, fontsize=7)
    axis.set_xlim(-0.6, len(names) - 0.4)


def _shortened(names: Sequence[str]) -> list[str]:
    """Without the parts that all begin and end with; of long names the middle is left out."""
    parts = [name.split(".") for name in names]
    fewest = min(map(len, parts)) - 1  # at least one part of each stays
    first = next((i for i in range(fewest) if len({p[i] for p in parts}) > 1), fewest)
    fewest -= first
    last = next((i for i in range(fewest) if len({p[-1 - i] for p in parts}) > 1), fewest)
    if len(names) == 1:
        first = last = 0
    texts = [".".join(p[first : len(p) - last]) for p in parts]
    half = _LONGEST // 2
    return [t if len(t) <= _LONGEST else f"{t[: half - 1]}..{t[1 - half :]}" for t in texts]
