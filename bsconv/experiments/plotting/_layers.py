"""First shares layer by layer, and how far they lie above those of random kernels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ._figures import subplots
from ._parts import array_of, arrays_of, grid_below, legend_below
from ._style import COLOURS, MARKERS, WIDTH

_BOXES = 40  # more than this on a figure are too thin for boxes
_NAMES = 40  # more names than this on a figure overlap
_LONGEST = 20  # characters of a name
_SHARE = "first share"
_RANDOM: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1.2}


def layer_boxes(
    layers: Mapping[str, ArrayLike], random: ArrayLike, *, ylabel: str = _SHARE, title: str = ""
) -> Figure:
    """For each layer a box of its filters' shares, and a dash where ``random`` kernels are.

    ``layers`` holds shares of shape (N,), ``random`` one number for each layer. A box reaches from
    quartile to quartile, its whiskers from the 5th to the 95th percentile. More than 40 layers are
    drawn as one band from quartile to quartile, and some of their names are left out.
    """
    arrays, baseline = _checked(layers, random)
    figure, axis = subplots()
    _draw_layers(axis, arrays, baseline, wide=WIDTH)
    axis.set(ylabel=ylabel)
    figure.suptitle(title)
    return figure


def layer_overview(
    layers: Mapping[str, ArrayLike],
    random: ArrayLike,
    excess: Mapping[str, ArrayLike],
    *,
    ylabel: str = _SHARE,
    title: str = "",
) -> Figure:
    """:func:`layer_boxes`, and next to it how far the medians of layers lie above ``random``.

    ``excess`` holds, by name, one number for each layer: such as "within kernels" and "across
    kernels". NaN stands for a layer without one.
    """
    arrays, baseline = _checked(layers, random)
    if not excess:
        raise ValueError("excess needs at least one set of numbers, got none")
    figure, (left, right) = subplots(1, 2, width_ratios=(3, 1))
    _draw_layers(left, arrays, baseline, wide=0.7 * WIDTH)
    left.set(ylabel=ylabel)
    labels = []
    for at, (name, values) in enumerate(excess.items()):
        numbers = _finite(array_of(f"excess[{name!r}]", values, 1))
        spread = np.linspace(-0.12, 0.12, len(numbers)) if len(numbers) > 1 else np.zeros(1)
        colour, marker = COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]
        right.plot(at + spread[: len(numbers)], numbers, marker, color=colour, markersize=3)
        middle = float(np.median(numbers)) if len(numbers) else np.nan
        right.plot([at - 0.3, at + 0.3], [middle, middle], "-", color="black", marker="")
        labels.append("\n".join([*name.split(), f"{middle:+.2f}" if len(numbers) else "none"]))
    right.axhline(0, **_RANDOM)
    right.set_xticks(range(len(excess)), labels)
    right.set(xlim=(-0.5, len(excess) - 0.5))
    right.set_title("median - random", fontsize=9)
    right.yaxis.set_major_formatter("{x:+.1f}")
    figure.suptitle(title)
    return figure


def excess_panels(
    panels: Mapping[str, tuple[ArrayLike, ArrayLike]],
    names: Sequence[str],
    *,
    ylabel: str = "median " + _SHARE,
    title: str = "",
) -> Figure:
    """Panels side by side, ``{name: (medians, random)}``, each with one number for each layer.

    What lies between medians and baseline is shaded: the excess over random kernels, whose median
    over the layers stands above the panel. All panels have one scale. NaN stands for a layer
    without a number.
    """
    if not panels:
        raise ValueError("panels needs at least one panel, got none")
    figure, axes = subplots(1, len(panels), sharey=True, squeeze=False)
    at = np.arange(len(names))
    highest = 0.0
    for axis, (name, pair) in zip(axes[0], panels.items(), strict=True):
        medians, random = (array_of(f"panels[{name!r}]", values, 1) for values in pair)
        for values in (medians, random):
            if len(values) != len(names):
                raise ValueError(
                    f"panels[{name!r}] needs a number for each of {len(names)} layers, "
                    f"got {len(values)}"
                )
        marker = "o" if len(names) <= _BOXES else ""
        axis.plot(at, medians, linestyle="-", marker=marker, color=COLOURS[0], label="median")
        axis.plot(at, random, marker="", label="random kernels", **_RANDOM)
        look: dict[str, Any] = {"facecolor": (COLOURS[0], 0.3), "edgecolor": COLOURS[0]}
        axis.fill_between(at, random, medians, hatch="////", linewidth=0, label="excess", **look)
        gap = _finite(medians - random)
        axis.set_title(f"{name}: {np.median(gap):+.2f}" if len(gap) else name, fontsize=9)
        _name_layers(axis, names, wide=WIDTH / len(panels))
        grid_below(axis, "y")
        highest = max([highest, *_finite(np.append(medians, random))])
    axes[0, 0].set(ylabel=ylabel, ylim=(0, min(1.0, 1.1 * highest) or 1.0))
    axes[0, 0].yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    legend_below(figure, axes[0])
    figure.suptitle(title)
    return figure


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]


def _checked(
    layers: Mapping[str, ArrayLike], random: ArrayLike
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    arrays = arrays_of("layers", layers, 1, "layer")
    baseline = array_of("random", random, 1)
    if len(baseline) != len(arrays):
        raise ValueError(
            f"random needs a number for each of {len(arrays)} layers, got {len(baseline)}"
        )
    return arrays, baseline


def _draw_layers(
    axis: Axes, layers: Mapping[str, NDArray[np.float64]], random: NDArray[np.float64], wide: float
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
        low, median, high = (
            np.array([np.quantile(shares, q) for shares in layers.values()])
            for q in (0.25, 0.5, 0.75)
        )
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
    short = _shortened(names)
    axis.set_xticks(at, [short[i] for i in at], rotation=90, fontsize=7)
    axis.set_xlim(-0.6, len(names) - 0.4)


def _shortened(names: Sequence[str]) -> list[str]:
    """Without the parts that all begin and end with; of long names the middle is left out."""
    parts = [name.split(".") for name in names]
    fewest = min(map(len, parts), default=1) - 1  # at least one part of each stays
    first = next((i for i in range(fewest) if len({p[i] for p in parts}) > 1), fewest)
    fewest -= first
    last = next((i for i in range(fewest) if len({p[-1 - i] for p in parts}) > 1), fewest)
    if len(names) == 1:
        first = last = 0
    texts = [".".join(p[first : len(p) - last]) for p in parts]
    half = _LONGEST // 2
    return [t if len(t) <= _LONGEST else f"{t[: half - 1]}..{t[1 - half :]}" for t in texts]
