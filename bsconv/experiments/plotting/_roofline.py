"""How fast layers compute, compared with what memory and arithmetic units allow."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ._figures import looks_of, one_panel, plain_ticks

_LIMITS = "#555555"


def roofline(
    points: Mapping[str, tuple[float, float]], *, peak: float, bandwidth: float, title: str = ""
) -> Figure:
    """Layers, each ``(FLOPs per byte, GFLOP/s)``, below the roof ``min(peak, bandwidth * x)``.

    ``peak`` is in GFLOP/s, ``bandwidth`` in GB/s (Williams et al., Roofline, 2009). A dotted line
    leads from each point to the roof: the speed that is left to gain.
    """
    intensities, rates = zip(*points.values(), strict=True)
    ridge = peak / bandwidth
    low, high = min(*intensities, ridge) / 2, max(*intensities, ridge) * 4
    figure, axis = one_panel(
        xlabel="arithmetic intensity (FLOPs per byte moved)", ylabel="GFLOP/s", title=title
    )
    roof_line = [low * bandwidth, peak, peak]
    axis.plot([low, ridge, high], roof_line, "-", color="black", marker="", linewidth=2)
    aside: dict[str, Any] = {"textcoords": "offset points"}
    looks = looks_of(points)
    for label, (intensity, rate) in points.items():
        look = looks[label]
        roof = min(peak, bandwidth * intensity)
        axis.plot([intensity] * 2, [rate, roof], ":", marker="", color=look["color"])
        axis.plot([intensity], [rate], look["marker"], color=look["color"], markersize=9)
        text = f"{label}\n{rate:,.3g} GFLOP/s"
        axis.annotate(text, (intensity, rate), (8, -6), va="top", **aside)
    axis.set(
        xscale="log",
        yscale="log",
        xlim=(low, high),
        ylim=(min(low * bandwidth, *rates) / 2, 2 * max(peak, *rates)),
    )
    for scale in (axis.xaxis, axis.yaxis):
        plain_ticks(scale)
    axis.grid()
    above = aside | {"color": _LIMITS, "va": "bottom"}
    figure.draw_without_rendering()  # the slope on paper is known once the layout is
    start, end = axis.transData.transform([(low, low * bandwidth), (ridge, peak)])
    slope = float(np.degrees(np.arctan2(end[1] - start[1], end[0] - start[0])))
    middle = np.sqrt(low * ridge)
    along = above | {"rotation": slope, "rotation_mode": "anchor", "ha": "center"}
    text = f"memory: {bandwidth:,.3g} GB/s"
    axis.annotate(text, (middle, bandwidth * middle), (-3, 3), **along)
    axis.annotate(f"arithmetic: {peak:,.3g} GFLOP/s", (ridge, peak), xytext=(6, 3), **above)
    return figure
