"""What one layer costs in four forms, with the formulas and their numbers."""

import math
from typing import Any, NamedTuple

from bsconv.pytorch._tools.convs import mid_channels

from ...experiments import plotting
from ._controls import Choice, numbers
from ._panel import Panel, Values, View
from ._text import paragraph, table

CHANNELS = (1, 3, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
SIDES = (1, 2, 4, 7, 8, 14, 16, 28, 32, 56, 64, 112, 224)
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


Part = tuple[str, int]  # of a layer: the formula of its weights, and their number


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
    blueprints = _part(N, side=K)
    # the formula, the parts before the stride, and those that apply it or come later
    forms: dict[str, tuple[str, list[Part], list[Part]]] = {
        "dense": ("M N K²", [], [_part(M, N, side=K)]),
        "depthwise-separable": ("M K² + M N", [], [_part(M, side=K), _part(M, N)]),
        "BSConv-U": ("M N + N K²", [_part(M, N)], [blueprints]),
        "BSConv-S": ("M' M + N M' + N K²", [_part(mid, M), _part(N, mid)], [blueprints]),
    }
    sizes = (H, W), (-(-H // stride), -(-W // stride))
    return tuple(_cost(name, *form, sizes) for name, form in forms.items())


def _part(*channels: int, side: int | None = None) -> Part:
    squared, count = ([], 1) if side is None else ([f"{side}²"], side**2)
    return "·".join([*map(str, channels), *squared]), math.prod(channels) * count


def _cost(
    name: str,
    letters: str,
    before: list[Part],
    after: list[Part],
    sizes: tuple[tuple[int, int], tuple[int, int]],
) -> LayerCost:
    """``sizes`` are (H, W) of the input and of the output."""
    groups = list(zip((before, after), sizes, strict=True))
    if sizes[0] == sizes[1]:
        groups = [(before + after, sizes[0])]
    macs, terms = 0, []
    for parts, (height, width) in groups:
        if parts:
            macs += sum(count for _, count in parts) * height * width
            terms.append(f"({' + '.join(text for text, _ in parts)})·{height}·{width}")
    parameters = sum(count for _, count in before + after)
    filled = " + ".join(text for text, _ in before + after)
    return LayerCost(
        name,
        parameters,
        f"{letters} = {filled} = {parameters:,}",
        macs,
        f"{' + '.join(terms)} = {macs:,}",
    )


class _Costs:
    title = "cost calculator"

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given

    def controls(self, values: Values) -> dict[str, Choice]:
        given = self.given
        sides = {str(n): n for n in (1, 2)}
        return {
            "M": numbers("M, input channels", CHANNELS, given["M"]),
            "N": numbers("N, output channels", CHANNELS, given["N"]),
            "K": numbers("K, kernel side (pixels)", (1, 3, 5, 7), given["K"]),
            "p": Choice("p, share of channels in BSConv-S", SHARES, given["p"]),
            "H": numbers("H, input height (pixels)", SIDES, given["H"]),
            "W": numbers("W, input width (pixels)", SIDES, given["W"]),
            "stride": Choice("stride (pixels)", sides, given["stride"], buttons=True),
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
        choices = list(control.options.values())
        if given[name] not in choices:
            raise ValueError(f"{name} needs to be one of {choices}, got {name}={given[name]!r}")
    return Panel(scene)
