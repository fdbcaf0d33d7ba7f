"""Which slices of a kernel are alike: depthwise first shares them across filters, BSConv within."""

from typing import NamedTuple

import torch
from torch import Tensor

from ...experiments import plotting
from ._controls import Choice, Control, Range
from ._panel import Panel, Values, View, paragraph

DEPTHWISE, POINTWISE = "depthwise first", "pointwise first"
_PATTERNS = torch.tensor(
    [
        [[1.0, 1, 1], [0, 0, 0], [-1, -1, -1]],
        [[1.0, 0, -1], [1, 0, -1], [1, 0, -1]],
        [[-0.5, 0, -0.5], [0, 1, 0], [-0.5, 0, -0.5]],
        [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.0, 1, 0], [1, 1, 1], [0, 1, 0]],
        [[1.0, 1, 0], [1, 0, 0], [0, 0, 0]],
    ]
)


class Order(NamedTuple):
    """The dense kernel (N, M, 3, 3) that equals the two convolutions, and what is alike in it.

    ``patterns`` (3 x 3 matrices) it is made of; ``by_filter`` and ``by_channel`` are the ranks of
    the slices of each filter n, and of those that see input channel m: 1 where all are alike.
    """

    kernel: Tensor
    patterns: int
    weights: int
    by_filter: list[int]
    by_channel: list[int]


def order_of(order: str, M: int, N: int) -> Order:
    """Kernels of a few patterns, the same ones in either order; M and N from 2 to 6.

    ValueError for an order other than "depthwise first" and "pointwise first", or another size.
    """
    if order not in (DEPTHWISE, POINTWISE):
        raise ValueError(f"order needs to be {DEPTHWISE!r} or {POINTWISE!r}, got {order!r}")
    for name, count in (("M", M), ("N", N)):
        if not isinstance(count, int) or not 2 <= count <= len(_PATTERNS):
            raise ValueError(f"{name} needs to be 2 to {len(_PATTERNS)}, got {name}={count!r}")
    generator = torch.Generator().manual_seed(0)
    most = len(_PATTERNS)
    signs = torch.randn(most, most, generator=generator).sign()
    w = (torch.empty(most, most).uniform_(0.3, 1, generator=generator) * signs)[:N, :M]
    count = M if order == DEPTHWISE else N
    equation = "nm,mhw->nmhw" if order == DEPTHWISE else "nm,nhw->nmhw"
    kernel = torch.einsum(equation, w, _PATTERNS[:count])
    ranks = [
        torch.linalg.matrix_rank(k.flatten(2)).tolist() for k in (kernel, kernel.transpose(0, 1))
    ]
    return Order(kernel, count, M * N + count * 9, *ranks)


class _Orders:
    title = "order toggle"

    def __init__(self, M: int, N: int) -> None:
        self.M, self.N = M, N

    def controls(self, values: Values) -> dict[str, Control]:
        orders = {f"{DEPTHWISE} (separable)": DEPTHWISE, f"{POINTWISE} (BSConv-U)": POINTWISE}
        most = len(_PATTERNS)
        return {
            "order": Choice("order", orders, DEPTHWISE, buttons=True),
            "M": Range("M, input channels", 2, most, self.M),
            "N": Range("N, filters", 2, most, self.N),
        }

    def view(self, values: Values) -> View:
        order, M, N = values["order"], values["M"], values["N"]
        found = order_of(order, M, N)
        if order == DEPTHWISE:
            alike = "in each column: all filters see input channel m through the same D_m"
            slices, formula = "w_nm D_m", f"M N + M K² = {M}·{N} + {M}·3²"
        else:
            alike = "in each row: filter n sees all its channels through its own blueprint B_n"
            slices, formula = "w_nm B_n", f"M N + N K² = {M}·{N} + {N}·3²"
        summary = f"{order}, slices {slices}: they are alike {alike}; {found.patterns} patterns."
        details = paragraph(
            f"Rank of the slices of each filter n: {', '.join(map(str, found.by_filter))}; of "
            f"those that see each channel m: {', '.join(map(str, found.by_channel))}. "
            f"Weights: {formula} = {found.weights}."
        )
        heading = f"{order}: each frame holds one pattern"
        framed = {heading: "columns" if order == DEPTHWISE else "rows"}

        def draw() -> plotting.Figure:
            return plotting.kernel_grids({heading: found.kernel}, framed)

        return View(summary, details, draw)


def order_toggle(M: int = 5, N: int = 4) -> Panel:
    """Controls "order", "M" and "N": the dense kernel of either order, and which slices are alike.

    M input channels and N filters, both from 2 to 6; ValueError for others.
    """
    order_of(DEPTHWISE, M, N)
    return Panel(_Orders(M, N))
