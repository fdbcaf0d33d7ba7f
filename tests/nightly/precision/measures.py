"""What is measured of weights: penalties, spectra, costs, the variance of first weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bsconv.pytorch import (
    BSConvS,
    BSConvS_ModelRegLossMixin,
    BSConvU,
    ModelProfiler,
    cross_kernel_spectra,
    kernel_spectra,
    reg_loss,
    spectra_table,
)
from bsconv.pytorch.initialization import dense_conv, match_variance_, uniform_variance_
from bsconv.pytorch.regularization import OrthonormalConv2d, orthonormality_penalty

from .comparison import case
from .inputs import KINDS, channels, numbers
from .layers import fill
from .transforms import kernel

ALL = tuple(KINDS)
BEYOND = ("huge", "largest")  # squares are beyond float32
Results = dict[str, Tensor]


class Penalised(BSConvS_ModelRegLossMixin, nn.Sequential):
    """A model with two layers of a kind and one of another."""


@case("orthonormality_penalty and its gradient", "orthonormality_penalty", overflows=BEYOND)
def penalty(kind: str, dtype: torch.dtype, many: int) -> Results:
    """And its gradient; products of weights beyond float32 are expected to be told."""
    count = channels(kind, many)
    basis = numbers(kind, max(1, count // 2), count).to(dtype).requires_grad_()
    value = orthonormality_penalty(basis)
    return {"penalty": value, "gradient": torch.autograd.grad(value, basis)[0]}


@case(
    "orthonormality_penalty at the optimum",
    "orthonormality_penalty",
    "OrthonormalBasis",
    kinds=("ordinary",),
)
def near_optimum(kind: str, dtype: torch.dtype, many: int) -> Results:
    """Beside the penalty of zeros, of which rows that are orthonormal to rounding have almost
    nothing."""
    rows = torch.linalg.qr(numbers("ordinary", many, many // 2).double()).Q.T.float()
    bases = (rows, torch.zeros_like(rows))
    return {"penalties": torch.stack([orthonormality_penalty(basis.to(dtype)) for basis in bases])}


@case(
    "reg_loss and its gradient",
    "reg_loss",
    "BSConvS_ModelRegLossMixin",
    "OrthonormalConv2d",
    kinds=tuple(kind for kind in ALL if "channel" not in kind),
    overflows=BEYOND,
)
def penalties(kind: str, dtype: torch.dtype, many: int) -> Results:
    layers = (BSConvS(8, 8, 3), BSConvS(8, 8, 3), OrthonormalConv2d(8, 4, 1), BSConvU(8, 8, 3))
    model = Penalised(*layers)
    fill(model, kind)
    model.to(dtype)
    value = model.reg_loss(alpha=0.3)
    weights = [layer.get_parameter(name) for layer, name in zip(model, _BASES, strict=False)]
    gradients = torch.autograd.grad(reg_loss(model, 0.3), weights)
    found = {f"gradient {number}": gradient for number, gradient in enumerate(gradients)}
    return found | {"penalty": value}


_BASES = ("pw1.weight", "pw1.weight", "weight")


@case(
    "kernel_spectra, cross_kernel_spectra",
    "kernel_spectra",
    "cross_kernel_spectra",
    kinds=tuple(kind for kind in ALL if kind != "one channel"),
)
def spectra(kind: str, dtype: torch.dtype, many: int) -> Results:
    """Shares, which are compared by their difference: rows of them add up to one."""
    weight = kernel(kind, many).to(dtype)
    found = {}
    for center in (True, False):
        found[f"within {center}"] = kernel_spectra(weight, center)[""]
        if len(weight) > 1:
            found[f"across {center}"] = cross_kernel_spectra(weight, center)[""]
    return {name: torch.cat((shares, shares.sum(1, True)), 1) for name, shares in found.items()}


@case(
    "spectra_table",
    "spectra_table",
    "SpectraTable",
    "LayerSpectrum",
    kinds=tuple(kind for kind in ALL if kind != "one channel"),
)
def table(kind: str, dtype: torch.dtype, many: int) -> Results:
    result = spectra_table({"a.weight": kernel(kind, many).to(dtype)})
    (row,) = result.rows
    names = ("mean", "lower_quartile", "median", "upper_quartile", "random", "excess")
    return {"row": torch.tensor([1.0, result.mean, *(getattr(row, name) for name in names)])}


@case(
    "ModelProfiler",
    "ModelProfiler",
    "LayerProfile",
    kinds=("ordinary", "one channel", "many channels"),
    bound=0.0,
)
def costs(kind: str, dtype: torch.dtype, many: int) -> Results:
    count = channels(kind, many)
    model = nn.Sequential(BSConvU(count, count, 3), nn.ReLU(), BSConvS(count, count, 3))
    profiler = ModelProfiler(model.to(dtype), (1, count, 9, 9))
    rows = [[row.parameters, row.flops, row.macs, row.activations] for row in profiler.rows]
    return {"counts": torch.tensor(rows, dtype=torch.float64)}


GAINS = {"ordinary": 2.0, "tiny": 1e-30, "huge": 1e30}


@case(
    "variance of first weights",
    "uniform_variance_",
    "match_variance_",
    "dense_conv",
    kinds=tuple(GAINS),
    bound=0.05,
)
def first_weights(kind: str, dtype: torch.dtype, many: int) -> Results:
    """The mean square of weights relative to what it should be: chance makes one of it."""
    torch.manual_seed(0)
    conv = uniform_variance_(nn.Conv2d(64, 128, 3, dtype=dtype), GAINS[kind])
    convs = {conv: GAINS[kind], dense_conv(64, 128, 3, dtype=dtype): 2.0}
    layer = match_variance_(BSConvU(64, 2048, 3, dtype=dtype))
    convs |= {layer.pw: 1.0, layer.dw: 2.0}
    ratios = [
        conv.weight.double().square().mean() * conv.weight[0].numel() / gain
        for conv, gain in convs.items()
    ]
    return {"ratios": torch.stack(ratios).detach()}
