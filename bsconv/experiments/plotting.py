"""Figures from arrays; the only file of the package that imports matplotlib.

Each function returns a figure that is to be shown with ``plt.show()``. Where a figure tells things
apart by colour, it does so by dash, marker or hatch as well.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "COLOURS",
    "accuracy_panels",
    "curve_panels",
    "curves",
    "dots",
    "grouped_bars",
    "image_rows",
    "kernel_grids",
    "kernel_slices",
    "matrices",
    "stacked_shares",
    "use_style",
]

# Okabe & Ito (2008): told apart with any colour vision. Their yellow is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# never colour alone: a curve keeps its dash and marker in print and in greyscale
_DASHES = ("-", "--", "-.", ":", "-", "--", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_HATCHES = ("", "////", "....", "xxxx", "----", "\\\\\\\\", "++++")
_WIDTH, _HEIGHT = 7.0, 3.5  # inches, the most a figure may have
_NARROWEST_LABELLED = 0.08  # a thinner segment has no room for its number
_FEW_POINTS = 25  # more markers than this on one curve hide it


def use_style() -> None:
    """Set how all figures of a notebook look: 7 x 3.5 inches at most, on white, 100 dpi."""
    mpl.rcParams.update(
        {
            "figure.figsize": (_WIDTH, _HEIGHT),
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "savefig.dpi": 100,
            "savefig.facecolor": "white",
            "axes.facecolor": "white",
            "axes.prop_cycle": (
                cycler(color=COLOURS) + cycler(linestyle=_DASHES) + cycler(marker=_MARKERS)
            ),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": "#DDDDDD",
            "lines.linewidth": 1.5,
            "lines.markersize": 4,
            "legend.frameon": False,
            "font.size": 9,
            "image.cmap": "cividis",
        }
    )


def kernel_slices(
    rows: Mapping[str, ArrayLike],
    captions: Mapping[str, Sequence[str]] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Each row the slices, shape (M, K, K), of one kernel; all on one scale symmetric about 0.

    ``captions`` holds, for the rows that have any, a text to stand above each slice.
    """
    kernels = {label: _array(f"rows[{label!r}]", kernel, 3) for label, kernel in rows.items()}
    if not kernels:
        raise ValueError("rows needs at least one kernel, got none")
    most = max(len(kernel) for kernel in kernels.values())
    limit = max(float(np.abs(kernel).max()) for kernel in kernels.values())
    height = min(_HEIGHT, 0.5 + 0.85 * len(kernels))
    figure, axes = plt.subplots(len(kernels), most, figsize=(_WIDTH, height), squeeze=False)
    for row, (label, kernel) in zip(axes, kernels.items(), strict=True):
        above = (captions or {}).get(label, [""] * len(kernel))
        for axis in row[len(kernel) :]:
            axis.axis("off")
        for axis, image, caption in zip(row, kernel, above, strict=False):
            shown = axis.imshow(image, cmap="PuOr_r", vmin=-limit, vmax=limit)
            axis.set_title(caption, fontsize=9)
            _bare(axis)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    figure.colorbar(shown, ax=axes, label="weight", shrink=0.8, aspect=15)
    figure.suptitle(title)
    return figure


def kernel_grids(
    grids: Mapping[str, ArrayLike],
    framed: Mapping[str, str] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Kernels, shape (N, M, K, K), side by side: row n is filter n, column m its slice m.

    All are on one scale symmetric about 0. ``framed`` says, for the grids that want it, whether
    the slices of each of the "rows" or of each of the "columns" stand in a frame.
    """
    kernels = {name: _array(f"grids[{name!r}]", kernel, 4) for name, kernel in grids.items()}
    if not kernels:
        raise ValueError("grids needs at least one kernel, got none")
    limit = max(float(np.abs(kernel).max()) for kernel in kernels.values())
    figure, axes = plt.subplots(1, len(kernels), squeeze=False)
    for axis, (name, kernel) in zip(axes[0], kernels.items(), strict=True):
        filters, slices, size = kernel.shape[:3]
        pitch = size + 1  # a slice and a gap
        picture = np.full((filters * pitch - 1, slices * pitch - 1), np.nan)
        for n, m in np.ndindex(filters, slices):
            picture[n * pitch : n * pitch + size, m * pitch : m * pitch + size] = kernel[n, m]
        shown = axis.imshow(picture, cmap="PuOr_r", vmin=-limit, vmax=limit)
        middle = (size - 1) / 2
        axis.set_xticks([middle + m * pitch for m in range(slices)], range(1, slices + 1))
        axis.set_yticks([middle + n * pitch for n in range(filters)], range(1, filters + 1))
        axis.set(title=name, xlabel="input channel m", ylabel="filter n")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        high, wide = picture.shape
        for box in _frames((framed or {}).get(name, ""), pitch, high, wide):
            axis.add_patch(box)
        axis.set(xlim=(-1.2, wide + 0.2), ylim=(high + 0.2, -1.2))
    figure.colorbar(shown, ax=axes, label="weight", shrink=0.8, aspect=15)
    figure.suptitle(title)
    return figure


def _frames(framed: str, pitch: int, high: int, wide: int) -> list[Rectangle]:
    """A frame around each row or each column of slices; none if neither is wanted."""
    if framed not in ("rows", "columns", ""):
        raise ValueError(f"framed needs to be 'rows' or 'columns', got {framed!r}")
    corners = {
        "rows": [(-1, start - 1, wide + 1, pitch) for start in range(0, high, pitch)],
        "columns": [(start - 1, -1, pitch, high + 1) for start in range(0, wide, pitch)],
    }.get(framed, [])
    look: dict[str, Any] = {"fill": False, "edgecolor": COLOURS[0], "linewidth": 1.8}
    return [Rectangle((x + 0.1, y + 0.1), w - 0.2, h - 0.2, **look) for x, y, w, h in corners]


def stacked_shares(
    panels: Mapping[str, Mapping[str, Mapping[str, float]]], *, title: str = ""
) -> Figure:
    """Panels side by side, each ``{bar: {part: amount}}``: what share of each bar is which part.

    All panels name the same bars; a part that a bar lacks counts as 0. Bars run from the top.
    """
    if not panels:
        raise ValueError("panels needs at least one panel, got none")
    bars = list(next(iter(panels.values())))
    parts = list(
        dict.fromkeys(part for panel in panels.values() for bar in panel.values() for part in bar)
    )
    figure, axes = plt.subplots(1, len(panels), sharey=True, squeeze=False)
    for axis, (name, panel) in zip(axes[0], panels.items(), strict=True):
        if list(panel) != bars:
            raise ValueError(f"panels need the same bars, {bars}, got {list(panel)} in {name!r}")
        totals = np.array([sum(panel[bar].values()) for bar in bars])
        left = np.zeros(len(bars))
        for index, part in enumerate(parts):
            share = np.array([panel[bar].get(part, 0.0) for bar in bars]) / totals
            drawn = axis.barh(
                *(bars, share),
                left=left,
                color=COLOURS[index % len(COLOURS)],
                hatch=_HATCHES[index % len(_HATCHES)],
                edgecolor="white",
                label=part,
            )
            numbers = [f"{s:.0%}" if s >= _NARROWEST_LABELLED else "" for s in share]
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
            for text in axis.bar_label(drawn, numbers, label_type="center", fontsize=8):
                if text.get_text():
                    text.set_bbox(box)
            left += share
        axis.set(title=name, xlabel="share", xlim=(0, 1), xticks=(0, 0.5, 1))
        axis.xaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(parts))
    figure.suptitle(title)
    return figure


def grouped_bars(
    names: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    ylabel: str,
    xlabel: str = "",
    title: str = "",
    log: bool = False,
    number: str = "",
) -> Figure:
    """For each name one bar of each series, side by side.

    ``number`` is the format in which a bar carries its value, such as "{:.0f} %"; empty for none.
    """
    figure, axis = plt.subplots()
    at = np.arange(len(names))
    width = 0.8 / max(1, len(series))
    looks = zip(cycle(COLOURS), cycle(_HATCHES), strict=False)
    for index, (label, values) in enumerate(series.items()):
        if len(values) != len(names):
            raise ValueError(
                f"series[{label!r}] needs one value for each of {len(names)} names, "
                f"got {len(values)}"
            )
        colour, hatch = next(looks)
        place = at + (index - (len(series) - 1) / 2) * width
        drawn = axis.bar(
            *(place, values, width), color=colour, hatch=hatch, edgecolor="white", label=label
        )
        if number:
            axis.bar_label(drawn, fmt=number, fontsize=8, padding=1)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if log:
        axis.set_yscale("log")
        _plain_ticks(axis.yaxis)
        lowest = min(min(values) for values in series.values())
        axis.set_ylim(bottom=10 ** np.floor(np.log10(lowest)))
    slanted = sum(map(len, names)) > 90
    axis.set_xticks(at, names, rotation=45 if slanted else 0, ha="right" if slanted else "center")
    axis.grid(axis="y")
    axis.set_axisbelow(True)
    if len(series) > 1:
        axis.legend()
    return figure


def curves(
    x: Sequence[float],
    series: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    log: str = "",
) -> Figure:
    """One curve for each series: values (points), or (runs, points) drawn as mean and range.

    ``log`` names the logarithmic axes: "x", "y" or "xy".
    """
    figure, axis = plt.subplots()
    every = max(1, len(x) // _FEW_POINTS)
    for label, values in series.items():
        runs = np.atleast_2d(np.asarray(values, dtype=float))
        if runs.ndim != 2 or runs.shape[1] != len(x):
            raise ValueError(
                f"series[{label!r}] needs shape ({len(x)},) or (runs, {len(x)}), "
                f"got {np.shape(values)}"
            )
        (line,) = axis.plot(x, runs.mean(axis=0), label=label, markevery=every)
        if len(runs) > 1:
            low, high = runs.min(axis=0), runs.max(axis=0)
            axis.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if "x" in log:
        axis.set_xscale("log")
        _plain_ticks(axis.xaxis)
    if "y" in log:
        axis.set_yscale("log")
        _plain_ticks(axis.yaxis)
    axis.grid()
    axis.legend()
    return figure


def dots(
    series: Mapping[str, Mapping[str, Sequence[float]]], *, xlabel: str, title: str = ""
) -> Figure:
    """``{series: {row: values of the runs}}``: a dot for each run, a bar across at their mean.

    Rows run from the top; a series may lack some of them.
    """
    rows = list(dict.fromkeys(row for values in series.values() for row in values))
    figure, axis = plt.subplots(figsize=(_WIDTH, min(_HEIGHT, 0.9 + 0.5 * len(rows))))
    step = 0.5 / max(1, len(series))
    looks = zip(cycle(COLOURS), cycle(_MARKERS), strict=False)
    for index, (label, values) in enumerate(series.items()):
        colour, marker = next(looks)
        for row, runs in values.items():
            at = rows.index(row) + (index - (len(series) - 1) / 2) * step
            named = label if row == next(iter(values)) else None
            axis.plot(runs, [at] * len(runs), marker, color=colour, alpha=0.7, label=named)
            axis.plot(np.mean(runs), at, "|", color=colour, markersize=16, markeredgewidth=2)
    axis.set(xlabel=xlabel, title=title)
    axis.set_yticks(range(len(rows)), rows)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(left=min(0, axis.get_xlim()[0]))
    axis.grid(axis="x")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def matrices(
    images: Mapping[str, ArrayLike],
    *,
    colour_label: str,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    signed: bool = False,
) -> Figure:
    """Matrices side by side on one colour scale, which is symmetric about 0 if ``signed``."""
    arrays = {name: _array(f"images[{name!r}]", image, 2) for name, image in images.items()}
    if not arrays:
        raise ValueError("images needs at least one matrix, got none")
    high = max(float(np.abs(a).max() if signed else a.max()) for a in arrays.values())
    low = -high if signed else min(float(a.min()) for a in arrays.values())
    width = min(_WIDTH, 1 + 3 * len(arrays))
    figure, axes = plt.subplots(1, len(arrays), figsize=(width, 3.0), squeeze=False)
    for axis, (name, array) in zip(axes[0], arrays.items(), strict=True):
        colours = "PuOr_r" if signed else "cividis"
        shown = axis.imshow(array, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axis.set(title=name, xlabel=xlabel, ylabel=ylabel)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
        axis.yaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    figure.colorbar(shown, ax=axes, label=colour_label, shrink=0.9)
    figure.suptitle(title)
    return figure


def image_rows(
    rows: Mapping[str, ArrayLike],
    captions: Mapping[str, Sequence[str]] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Each row a few colour images, shape (images, H, W, 3), uint8 or in [0, 1].

    ``captions`` holds, for the rows that have any, a text to stand above each image.
    """
    arrays = {label: np.asarray(images) for label, images in rows.items()}
    for label, images in arrays.items():
        if images.ndim != 4 or images.shape[-1] != 3 or not len(images):
            raise ValueError(
                f"rows[{label!r}] needs shape (images, H, W, 3), got shape {images.shape}"
            )
    most = max(map(len, arrays.values()), default=1)
    height = min(_HEIGHT, 0.5 + 0.95 * len(arrays))
    figure, axes = plt.subplots(max(1, len(arrays)), most, figsize=(_WIDTH, height), squeeze=False)
    for row, (label, images) in zip(axes, arrays.items(), strict=False):
        above = (captions or {}).get(label, [""] * len(images))
        for axis in row[len(images) :]:
            axis.axis("off")
        for axis, image, caption in zip(row, images, above, strict=False):
            axis.imshow(image, interpolation="nearest")
            axis.set_title(caption, fontsize=8)
            _bare(axis)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    figure.suptitle(title)
    return figure


def curve_panels(
    panels: Mapping[str, Mapping[str, ArrayLike]],
    *,
    xlabel: str,
    ylabels: Sequence[str],
    title: str = "",
) -> Figure:
    """Panels side by side, each ``{label: values}``: (points,) or (runs, points) at 1, 2, 3, ...

    Several runs are drawn as their mean and range. A label looks the same in all panels; a panel
    without any curve says so.
    """
    if len(ylabels) != len(panels) or not panels:
        raise ValueError(f"{len(panels)} panels need as many ylabels, got {len(ylabels)}")
    figure, axes = plt.subplots(1, len(panels), squeeze=False)
    looks = _looks(label for series in panels.values() for label in series)
    for axis, (name, series), ylabel in zip(axes[0], panels.items(), ylabels, strict=True):
        for label, values in series.items():
            runs = np.atleast_2d(np.asarray(values, dtype=float))
            if runs.ndim != 2:
                raise ValueError(
                    f"panels[{name!r}][{label!r}] needs shape (points,) or (runs, points), "
                    f"got {np.shape(values)}"
                )
            x = np.arange(1, runs.shape[1] + 1)
            axis.plot(x, runs.mean(axis=0), label=label, **looks[label])
            if len(runs) > 1:
                low, high, colour = runs.min(axis=0), runs.max(axis=0), looks[label]["color"]
                axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.set(title=name, xlabel=xlabel, ylabel=ylabel)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        _finish_panel(axis)
    _legend_below(figure, axes[0])
    figure.suptitle(title)
    return figure


Network = tuple[str, float, Sequence[float]]
"""A name to stand at the point, million parameters, and the accuracies of its runs in percent."""


def accuracy_panels(
    panels: Mapping[str, Mapping[str, Sequence[Network]]], *, title: str = ""
) -> Figure:
    """Panels side by side, each ``{label: networks}``: top-1 accuracy against parameters.

    The networks of a label are joined by a line in the order given; several runs of one are drawn
    as their mean and range. A label looks the same in all panels; a panel without any says so.
    """
    if not panels:
        raise ValueError("panels needs at least one panel, got none")
    figure, axes = plt.subplots(1, len(panels), squeeze=False)
    looks = _looks(label for series in panels.values() for label in series)
    for axis, (name, series) in zip(axes[0], panels.items(), strict=True):
        for label, networks in series.items():
            millions = [network[1] for network in networks]
            means = np.array([np.mean(network[2]) for network in networks])
            spread = [
                means - [min(network[2]) for network in networks],
                [max(network[2]) for network in networks] - means,
            ]
            bars = spread if np.any(spread) else None
            axis.errorbar(millions, means, bars, capsize=3, label=label, **looks[label])
            for (text, *_), x, y in zip(networks, millions, means, strict=True):
                below: dict[str, Any] = {"xytext": (0, -11), "textcoords": "offset points"}
                colour = looks[label]["color"]
                axis.annotate(text, (x, y), color=colour, fontsize=7, ha="center", **below)
        axis.set(title=name, xlabel="million parameters")
        axis.set_xscale("log")
        axis.margins(0.12)
        low, high = axis.get_xlim()
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1,) if high > 100 * low else (1, 3)))
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        _finish_panel(axis)
    axes[0, 0].set_ylabel("top-1 accuracy (%)")
    _legend_below(figure, axes[0])
    figure.suptitle(title)
    return figure


def _looks(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, dash and marker for each label, in the order in which they first come."""
    styles = cycle(zip(COLOURS, _DASHES, _MARKERS, strict=True))
    return {
        label: {"color": colour, "linestyle": dash, "marker": marker}
        for label, (colour, dash, marker) in zip(dict.fromkeys(labels), styles, strict=False)
    }


def _finish_panel(axis: Axes) -> None:
    axis.title.set_fontsize(9)
    axis.grid()
    if not axis.lines:
        axis.text(0.5, 0.5, "nothing to show yet", transform=axis.transAxes, ha="center")
        axis.axis("off")


def _legend_below(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend for all panels."""
    found = [axis.get_legend_handles_labels() for axis in axes]
    named = {
        label: handle
        for handles, labels in found
        for handle, label in zip(handles, labels, strict=True)
    }
    if named:
        below: dict[str, Any] = {"loc": "outside lower center", "ncols": len(named)}
        figure.legend(list(named.values()), list(named), handlelength=3.5, **below)


def _array(name: str, values: ArrayLike, dimensions: int) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=float)
    if array.ndim != dimensions or not array.size:
        raise ValueError(f"{name} needs {dimensions} dimensions, got shape {array.shape}")
    return array


def _plain_ticks(axis: Axis) -> None:
    """A logarithmic axis with 0.1, 0.2, 0.5, 1, ... written out."""
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def _bare(axis: Axes) -> None:
    """No ticks, but a frame, so that pale slices have an edge."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(visible=True, color="#999999", linewidth=0.5)
