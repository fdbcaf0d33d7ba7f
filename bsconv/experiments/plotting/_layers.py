"""First shares layer by layer, and how far they lie above those of random kernels."""

from collections.abc import Mapping, Sequence
from itertools import takewhile

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ._figures import COLOURS, Look, Series, grid_below, in_percent, looks_of, new_figure, panels_of

_MOST = 40  # layers across a figure: more are too thin for boxes, and more names overlap
_LONGEST = 20  # characters of a name
_RANDOM: Look = {"color": "black", "linestyle": "--", "linewidth": 1.2}


def layer_boxes(
    layers: Series, random: ArrayLike, excess: Series | None = None, *, ylabel: str, title: str = ""
) -> Figure:
    """For each layer a box of its filters' shares, and a dash where ``random`` kernels are.

    ``layers`` holds shares of shape (N,), ``random`` one number for each layer. Whiskers span from
    the 5th to the 95th percentile; more than 40 layers are a band from quartile to quartile.
    ``excess``, in a second panel, is how far medians lie above ``random``: see excess_panels.
    """
    figure = new_figure(title=title)
    if excess is None:
        axis = figure.subplots()
        _draw_layers(axis, layers, random, _MOST)
    else:
        axis, right = figure.subplots(1, 2, width_ratios=(3, 1))
        _draw_layers(axis, layers, random, int(0.7 * _MOST))
        _draw_excess(right, excess)
        right.set_title("median - random", fontsize=9)
    axis.set_ylabel(ylabel)
    return figure


def excess_panels(networks: Mapping[str, Series], *, title: str = "") -> Figure:
    """A panel for each network: how far its layers lie above random kernels, side by side.

    ``networks[name]`` holds lists of one number for each layer, NaN where it has none, such as
    "within kernels" and "across kernels". A line joins the dots of a layer, a bar is the median.
    """
    figure, axes = panels_of(networks, title, "median first share - random", sharey=True)
    for name, axis in axes.items():
        _draw_excess(axis, networks[name], joined=True)
        grid_below(axis, "y")
    return figure


def _draw_excess(axis: Axes, excess: Series, joined: bool = False) -> None:
    labels = []
    if joined:
        layers = np.array(list(excess.values()), dtype=float)
        axis.plot(layers, "-", color="#BBBBBB", marker="", linewidth=0.8)
    for at, (name, look) in enumerate(looks_of(excess).items()):
        numbers = np.asarray(excess[name], dtype=float)
        numbers = numbers[np.isfinite(numbers)]
        spread = 0 if joined or len(numbers) == 1 else np.linspace(-0.12, 0.12, len(numbers))
        places = np.full(len(numbers), at) + spread
        axis.plot(places, numbers, look["marker"], color=look["color"], markersize=3)
        middle = float(np.median(numbers)) if len(numbers) else np.nan
        axis.plot([at - 0.3, at + 0.3], [middle, middle], "-", color="black", marker="")
        labels.append("\n".join([*name.split(), f"{middle:+.2f}" if len(numbers) else "none"]))
    axis.axhline(0, **_RANDOM)
    axis.set_xticks(range(len(excess)), labels)
    axis.set_xlim(-0.5, len(excess) - 0.5)
    axis.yaxis.set_major_formatter("{x:+.1f}")


def _draw_layers(axis: Axes, layers: Series, random: ArrayLike, most: int) -> None:
    at, dark, pale = np.arange(len(layers)), COLOURS[0], COLOURS[5]
    if len(layers) <= most:
        line, box = {"color": dark}, {"facecolor": pale, "edgecolor": dark}
        looks = {"boxprops": box, "medianprops": line | {"linewidth": 2}}
        looks |= {"whiskerprops": line, "capprops": line}
        options: Look = {"patch_artist": True, "showfliers": False, "manage_ticks": False, **looks}
        shares = list(layers.values())
        drawn = axis.boxplot(shares, positions=at, widths=0.6, whis=(5, 95), **options)
        drawn["boxes"][0].set_label("filters: quartiles, median")
        dash = _RANDOM | {"linestyle": "-", "linewidth": 2}
        axis.hlines(random, at - 0.42, at + 0.42, label="random kernels", **dash)
    else:
        quartiles = [np.quantile(np.asarray(each), (0.25, 0.5, 0.75)) for each in layers.values()]
        low, median, high = np.transpose(quartiles)
        axis.fill_between(at, low, high, color=pale, linewidth=0, label="quartiles")
        axis.plot(at, median, color=dark, linestyle="-", marker="", label="median")
        axis.plot(at, random, marker="", label="random kernels", **_RANDOM)
    # names: upright, shortened, and only as many as fit
    every = -(-len(layers) // most)
    axis.set_xticks(at[::every], _shortened(list(layers))[::every], rotation=90, fontsize=7)
    axis.set(xlim=(-0.6, len(layers) - 0.4), ylim=(0, 1))
    in_percent(axis.yaxis)
    grid_below(axis, "y")
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8)


def _shortened(names: Sequence[str]) -> list[str]:
    """Without the parts that all begin and end with; of long names the middle is left out."""
    parts = [name.split(".") for name in names]
    if len(parts) > 1:  # of each name one part at least stays
        first = _common([p[:-1] for p in parts])
        last = _common([p[:first:-1] for p in parts])
        parts = [p[first : len(p) - last] for p in parts]
    half = _LONGEST // 2
    texts = map(".".join, parts)
    return [t if len(t) <= _LONGEST else f"{t[: half - 1]}..{t[1 - half :]}" for t in texts]


def _common(lists: list[list[str]]) -> int:
    """How many items all begin with."""
    columns = map(set, zip(*lists, strict=False))
    return len(list(takewhile(lambda column: len(column) == 1, columns)))
