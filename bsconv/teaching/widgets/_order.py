"""Which slices of a kernel are alike: depthwise first shares them across filters, BSConv within."""

import torch
from torch import Tensor

from ...experiments import plotting
from ._panel import Panel, View, buttons, paragraph, slider

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
_MOST = len(_PATTERNS)


def order_toggle(M: int = 5, N: int = 4) -> Panel:
    """Controls "order", "M" and "N": the dense kernel of either order, and which slices are alike.

    M input channels and N filters, both from 2 to 6; ValueError for others.
    """
    orders = {f"{DEPTHWISE} (separable)": DEPTHWISE, f"{POINTWISE} (BSConv-U)": POINTWISE}
    controls = {
        "order": buttons("order", orders, DEPTHWISE),
        "M": slider("M, input channels", 2, _MOST, M),
        "N": slider("N, filters", 2, _MOST, N),
    }
    return Panel("order toggle", controls, _view)


def kernel_of(order: str, M: int, N: int) -> Tensor:
    """The dense kernel (N, M, 3, 3) that equals the two convolutions, made of a few patterns."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randn(_MOST, _MOST, generator=generator).sign()
    w = (torch.empty(_MOST, _MOST).uniform_(0.3, 1, generator=generator) * signs)[:N, :M]
    if order == DEPTHWISE:
        return torch.einsum("nm,mhw->nmhw", w, _PATTERNS[:M])
    return torch.einsum("nm,nhw->nmhw", w, _PATTERNS[:N])


def _view(order: str, M: int, N: int) -> View:
    kernel = kernel_of(order, M, N)
    if order == DEPTHWISE:
        patterns, letter, slices, lines = M, "M", "w_nm D_m", "columns"
        alike = "in each column: all filters see input channel m through the same D_m"
    else:
        patterns, letter, slices, lines = N, "N", "w_nm B_n", "rows"
        alike = "in each row: filter n sees all its channels through its own blueprint B_n"
    both = kernel, kernel.transpose(0, 1)
    ranks = (torch.linalg.matrix_rank(matrices.flatten(2)).tolist() for matrices in both)
    by_filter, by_channel = (", ".join(map(str, each)) for each in ranks)
    details = paragraph(
        f"Rank of the slices of each filter n: {by_filter}; of those that see each channel m: "
        f"{by_channel}. Weights: M N + {letter} K² = {M}·{N} + {patterns}·3² = "
        f"{M * N + patterns * 9}."
    )
    heading = f"{order}: each frame holds one pattern"
    summary = f"{order}, slices {slices}: they are alike {alike}; {patterns} patterns."
    grids, framed = {heading: kernel}, {heading: lines}
    return View(summary, details, lambda: plotting.kernel_grids(grids, framed))
