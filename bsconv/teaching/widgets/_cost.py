"""What one layer costs in four forms, with the formulas and their numbers."""

from typing import NamedTuple

from bsconv.pytorch._tools.convs import mid_channels

from ...experiments import plotting
from ._panel import Panel, View, buttons, choice, paragraph, table

Product = tuple[str, int]  # as it is shown, and what it comes to


def _options(*numbers: int) -> dict[str, int]:
    return {str(number): number for number in numbers}


CHANNELS = _options(1, 3, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
SIDES = _options(1, 2, 4, 7, 8, 14, 16, 28, 32, 56, 64, 112, 224)
SHARES = {f"1/{n}": 1 / n for n in (8, 6, 4, 3, 2, 1)}


def cost_calculator(
    M: int = 64, N: int = 64, K: int = 3, p: float = 1 / 4, H: int = 32, W: int = 32
) -> Panel:
    """Controls "M", "N", "K", "p", "H", "W" and "stride": parameters and MACs of four layers.

    The arguments are the values to begin with; ValueError for one that the controls lack.
    """
    controls = {
        "M": choice("M, input channels", CHANNELS, M),
        "N": choice("N, output channels", CHANNELS, N),
        "K": choice("K, kernel side (pixels)", _options(1, 3, 5, 7), K),
        "p": choice("p, share of channels in BSConv-S", SHARES, p),
        "H": choice("H, input height (pixels)", SIDES, H),
        "W": choice("W, input width (pixels)", SIDES, W),
        "stride": buttons("stride (pixels)", _options(1, 2), 1),
    }
    return Panel("cost calculator", controls, _view)


class LayerCost(NamedTuple):
    """Parameters (without bias) and multiply-accumulates of a layer, each with its formula."""

    name: str
    parameters: int
    parameters_formula: str
    macs: int
    macs_formula: str


def layer_costs(M: int, N: int, K: int, p: float, H: int, W: int, stride: int) -> list[LayerCost]:
    """Padding is K // 2; BSConv's pointwise parts see all positions of the input."""
    mid = mid_channels(M, p)
    rows, columns = -(-H // stride), -(-W // stride)
    before, after = (f"{H}·{W}", H * W), (f"{rows}·{columns}", rows * columns)
    pw, dw = (f"{M}·{N}", M * N), (f"{N}·{K}²", N * K**2)
    subspace = [(f"{mid}·{M}", mid * M), (f"{N}·{mid}", N * mid)]
    # the formula of the weights, the parts before the stride, and those with or after it
    forms: dict[str, tuple[str, list[Product], list[Product]]] = {
        "dense": ("M N K²", [], [(f"{M}·{N}·{K}²", M * N * K**2)]),
        "depthwise-separable": ("M K² + M N", [], [(f"{M}·{K}²", M * K**2), pw]),
        "BSConv-U": ("M N + N K²", [pw], [dw]),
        "BSConv-S": ("M' M + N M' + N K²", subspace, [dw]),
    }
    costs = []
    for name, (letters, first, then) in forms.items():
        groups = [(before, first), (after, then)] if before != after else [(after, first + then)]
        parameters = sum(weights for _, weights in first + then)
        macs = sum(weights * size for (_, size), parts in groups for _, weights in parts)
        terms = " + ".join(f"({_shown(parts)})·{size}" for (size, _), parts in groups if parts)
        formula = f"{letters} = {_shown(first + then)} = {parameters:,}"
        costs.append(LayerCost(name, parameters, formula, macs, f"{terms} = {macs:,}"))
    return costs


def _shown(products: list[Product]) -> str:
    return " + ".join(text for text, _ in products)


def _view(M: int, N: int, K: int, p: float, H: int, W: int, stride: int) -> View:
    costs = dense, _, u, s = layer_costs(M, N, K, p, H, W, stride)
    summary = (
        f"BSConv-U has {u.parameters:,} of the dense layer's {dense.parameters:,} parameters "
        f"({u.parameters / dense.parameters:.1%}) and {u.macs:,} of its {dense.macs:,} MACs "
        f"({u.macs / dense.macs:.1%}); BSConv-S, through M' = {mid_channels(M, p)} channels, "
        f"{s.parameters:,} ({s.parameters / dense.parameters:.1%}) and {s.macs:,} "
        f"({s.macs / dense.macs:.1%})."
    )
    header = ("layer", "parameters", "their formula", "MACs", "their formula")
    note = "Without bias, padding K // 2, one image; MACs are multiply-accumulates."
    series = {
        "parameters": [100 * cost.parameters / dense.parameters for cost in costs],
        "MACs": [100 * cost.macs / dense.macs for cost in costs],
    }

    def draw() -> plotting.Figure:
        names, ylabel = [cost.name for cost in costs], "% of the dense layer"
        title = f"One layer, {M} to {N} channels, {K} x {K}, stride {stride}, on {H} x {W}"
        return plotting.grouped_bars(names, series, ylabel=ylabel, title=title, number="{:.1f} %")

    return View(summary, table(header, costs) + paragraph(note), draw)
