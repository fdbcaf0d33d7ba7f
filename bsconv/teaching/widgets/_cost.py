"""What one layer costs in four forms, with the formulas and their numbers."""

import math
from typing import Any, NamedTuple

from bsconv.pytorch._tools.convs import mid_channels

from ...experiments import plotting
from ._controls import Choice, Control
from ._panel import Panel, Values, View, paragraph, table


def _shown(*numbers: int) -> dict[str, int]:
    return {str(number): number for number in numbers}


CHANNELS = _shown(1, 3, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
SIDES = _shown(1, 2, 4, 7, 8, 14, 16, 28, 32, 56, 64, 112, 224)
SHARES = {f"1/{n}": 1 / n for n in (8, 6, 4, 3, 2, 1)}


class LayerCost(NamedTuple):
    """Parameters (without bias) and multiply-accumulates of one form of a layer.

    ``parameters_formula`` and ``macs_formula`` are the formulas with the numbers filled in.
    """

    name: str
    parameters: int
    parameters_formula: str
    macs: int
    macs_formula: str


def layer_costs(
    M: int, N: int, K: int, p: float, H: int, W: int, stride: int = 1
) -> tuple[LayerCost, ...]:
    """A layer from M to N channels, kernel K x K with padding K // 2, on an input of H x W.

    Dense, depthwise-separable (depthwise first), BSConv-U and BSConv-S through
    M' = min(M, max(4, ceil(p M))) channels. The pointwise parts of BSConv see all H W positions of
    the input, all other parts the H' W' of the output. ValueError for numbers below 1 and p outside
    0..1.
    """
    given = {"M": M, "N": N, "K": K, "H": H, "W": W, "stride": stride}
    for name, value in given.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} needs to be a whole number >= 1, got {name}={value!r}")
    if K % 2 == 0:
        raise ValueError(f"K needs to be odd, got K={K}")
    mid = mid_channels(M, p)
    # the formula of the weights, the parts before the stride, and those with or after it
    forms: dict[str, tuple[str, list[str], list[str]]] = {
        "dense": ("M N K²", [], [f"{M}·{N}·{K}²"]),
        "depthwise-separable": ("M K² + M N", [], [f"{M}·{K}²", f"{M}·{N}"]),
        "BSConv-U": ("M N + N K²", [f"{M}·{N}"], [f"{N}·{K}²"]),
        "BSConv-S": ("M' M + N M' + N K²", [f"{mid}·{M}", f"{N}·{mid}"], [f"{N}·{K}²"]),
    }
    return tuple(_cost(name, *form, (H, W), stride) for name, form in forms.items())


def _cost(
    name: str, letters: str, before: list[str], after: list[str], size: tuple[int, int], stride: int
) -> LayerCost:
    groups = [(before, size), (after, tuple(-(-side // stride) for side in size))]
    if groups[0][1] == groups[1][1]:
        groups = [(before + after, size)]
    macs, terms = 0, []
    for parts, (height, width) in groups:
        if parts:
            macs += sum(map(_value, parts)) * height * width
            terms.append(f"({' + '.join(parts)})·{height}·{width}")
    parameters = sum(map(_value, before + after))
    return LayerCost(
        name,
        parameters,
        f"{letters} = {' + '.join(before + after)} = {parameters:,}",
        macs,
        f"{' + '.join(terms)} = {macs:,}",
    )


def _value(product: str) -> int:
    """What a product such as ``"64·3²"`` comes to."""
    factors = product.split("·")
    return math.prod(int(f.removesuffix("²")) ** (2 if f.endswith("²") else 1) for f in factors)


class _Costs:
    title = "cost calculator"

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given

    def controls(self, values: Values) -> dict[str, Control]:
        given = self.given
        return {
            "M": Choice("M, input channels", CHANNELS, given["M"]),
            "N": Choice("N, output channels", CHANNELS, given["N"]),
            "K": Choice("K, kernel side (pixels)", _shown(1, 3, 5, 7), given["K"]),
            "p": Choice("p, share of channels in BSConv-S", SHARES, given["p"]),
            "H": Choice("H, input height (pixels)", SIDES, given["H"]),
            "W": Choice("W, input width (pixels)", SIDES, given["W"]),
            "stride": Choice("stride (pixels)", _shown(1, 2), given["stride"], buttons=True),
        }

    def view(self, values: Values) -> View:
        costs = layer_costs(**values)
        dense, _, u, s = costs
        mid = mid_channels(values["M"], values["p"])
        summary = (
            f"BSConv-U has {u.parameters:,} of the dense layer's {dense.parameters:,} parameters "
            f"({u.parameters / dense.parameters:.1%}) and {u.macs:,} of its {dense.macs:,} MACs "
            f"({u.macs / dense.macs:.1%}); BSConv-S, through M' = {mid} channels, "
            f"{s.parameters:,} ({s.parameters / dense.parameters:.1%}) and {s.macs:,} "
            f"({s.macs / dense.macs:.1%})."
        )
        rows = [(c.name, c.parameters, c.parameters_formula, c.macs, c.macs_formula) for c in costs]
        header = ("layer", "parameters", "their formula", "MACs", "their formula")
        note = "Without bias, padding K // 2, one image; MACs are multiply-accumulates."
        details = table(header, rows) + paragraph(note)

        def draw() -> plotting.Figure:
            series = {
                "parameters": [100 * c.parameters / dense.parameters for c in costs],
                "MACs": [100 * c.macs / dense.macs for c in costs],
            }
            names = [c.name for c in costs]
            figure = plotting.grouped_bars(
                names, series, ylabel="% of the dense layer", number="{:.1f} %"
            )
            M, N, K, H, W = (values[name] for name in "MNKHW")
            shape = f"{M} to {N} channels, {K} x {K}, stride {values['stride']}, on {H} x {W}"
            figure.axes[0].set_title(f"One layer, {shape}")
            return figure

        return View(summary, details, draw)


def cost_calculator(
    M: int = 64, N: int = 64, K: int = 3, p: float = 1 / 4, H: int = 32, W: int = 32
) -> Panel:
    """Controls "M", "N", "K", "p", "H", "W" and "stride": parameters and MACs of four layers.

    The arguments are the values to begin with; ValueError for one that the controls lack.
    """
    given = {"M": M, "N": N, "K": K, "p": p, "H": H, "W": W, "stride": 1}
    scene = _Costs(given)
    for name, control in scene.controls({}).items():
        assert isinstance(control, Choice)
        choices = list(control.options.values())
        if given[name] not in choices:
            raise ValueError(f"{name} needs to be one of {choices}, got {name}={given[name]!r}")
    return Panel(scene)
