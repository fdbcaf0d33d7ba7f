"""How fast layers compute, compared with what memory and arithmetic units allow."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ._figures import subplots
from ._parts import plain_ticks
from ._style import looks_of

_LIMITS = "#555555"


def roofline(
    points: Mapping[str, tuple[float, float]],
    *,
    peak: float,
    bandwidth: float,
    title: str = "",
) -> Figure:
    """Layers, each ``(FLOPs per byte, GFLOP/s)``, below the roof ``min(peak, bandwidth * x)``.

    ``peak`` is in GFLOP/s, ``bandwidth`` in GB/s (Williams et al., Roofline, 2009). A dotted line
    leads from each point to the roof: the speed that is left to gain.
    """
    if not points:
        raise ValueError("points needs at least one layer, got none")
    for name, numbers in {"peak": (peak,), "bandwidth": (bandwidth,), **points}.items():
        if not all(number > 0 for number in numbers):
            raise ValueError(f"{name} needs numbers above 0, got {numbers}")
    intensities, rates = zip(*points.values(), strict=True)
    ridge = peak / bandwidth
    low, high = min(*intensities, ridge) / 2, max(*intensities, ridge) * 4
    figure, axis = subplots()
    axis.plot(
        [low, ridge, high],
        [low * bandwidth, peak, peak],
        color="black",
        linestyle="-",
        marker="",
        linewidth=2,
    )
    for (label, (intensity, rate)), look in zip(
        points.items(), looks_of(points).values(), strict=True
    ):
        roof = min(peak, bandwidth * intensity)
        axis.plot([intensity] * 2, [rate, roof], ":", marker="", color=look["color"])
        axis.plot([intensity], [rate], look["marker"], color=look["color"], markersize=9)
        axis.annotate(
            f"{label}\n{rate:,.3g} GFLOP/s",
            (intensity, rate),
            xytext=(8, -6),
            textcoords="offset points",
            va="top",
        )
    axis.set(
        xscale="log",
        yscale="log",
        xlim=(low, high),
        ylim=(min(low * bandwidth, *rates) / 2, 2 * max(peak, *rates)),
        xlabel="arithmetic intensity (FLOPs per byte moved)",
        ylabel="GFLOP/s",
        title=title,
    )
    for scale in (axis.xaxis, axis.yaxis):
        plain_ticks(scale)
    axis.grid()
    above: dict[str, Any] = {"textcoords": "offset points", "color": _LIMITS, "va": "bottom"}
    figure.draw_without_rendering()  # the slope on paper is known once the layout is
    start, end = axis.transData.transform([(low, low * bandwidth), (ridge, peak)])
    slope = float(np.degrees(np.arctan2(end[1] - start[1], end[0] - start[0])))
    axis.annotate(
        f"memory: {bandwidth:,.3g} GB/s",
        (np.sqrt(low * ridge), bandwidth * np.sqrt(low * ridge)),
        xytext=(-3, 3),
        rotation=slope,
        rotation_mode="anchor",
        ha="center",
        **above,
    )
    axis.annotate(f"arithmetic: {peak:,.3g} GFLOP/s", (ridge, peak), xytext=(6, 3), **above)
    return figure
