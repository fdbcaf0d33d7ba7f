"""How the variance of vectors spreads over their principal components: shares, largest first.

A filter is a set of vectors, a matrix (samples, features). Its shares are the eigenvalues of the
Gram matrix of the smaller side, divided by their sum.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from .._tools.numerics import exact, full_float32, power_of_two_scale

CHUNK = 2**20  # numbers that are taken at a time, 8 MiB in float64
PIECE = 256  # matrices that a thread takes at a time
LONG = 128  # samples from which on sums in float32, twice as fast, are worth their rounding


def shares_of(weights: Iterable[Tensor], center: bool) -> list[Tensor]:
    """Shares (filters, min(samples, features)) in float64 of each weight (filters, samples, ...).

    A filter without variance has the shares 1, 0, 0, ..., one that is not finite has NaN.
    """
    with full_float32():
        grams = [_grams(weight, center) for weight in weights]
    # LAPACK takes one small matrix after another: several threads take them piece by piece
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        pieces = ((gram.is_cpu, torch.split(gram, PIECE)) for gram in grams)
        found = [(pool.map if on_cpu else map)(_eigenvalues, each) for on_cpu, each in pieces]
        return [_normalised(torch.cat(list(values))) for values in found]


def _grams(weight: Tensor, center: bool) -> Tensor:
    chunks = torch.split(weight.detach(), max(1, CHUNK // weight[0].numel()))
    return torch.cat([_gram(filters, center) for filters in chunks])


def _eigenvalues(gram: Tensor) -> Tensor:
    """Those of each matrix; NaN for one that is not finite, on which LAPACK would fail."""
    finite = _trace(gram).isfinite()[:, None]
    return torch.linalg.eigvalsh(gram.where(finite[..., None], 0.0)).where(finite, torch.nan)


def _normalised(values: Tensor) -> Tensor:
    values = values.double().flip(1).clamp(min=0)
    total = values.sum(1, keepdim=True)
    one_component = torch.eye(1, values.shape[1], dtype=values.dtype, device=values.device)
    return torch.where(total == 0, one_component, values / total)


def _gram(filters: Tensor, center: bool) -> Tensor:
    """The matrices of all filters, up to a factor for each; zero where only rounding is left."""
    samples, features = filters.shape[1], filters[0, 0].numel()
    is_long = samples >= max(LONG, features) and samples % 2 == 0
    if filters.dtype == torch.float64 or not (is_long and filters.is_cpu):
        return _exact_gram(filters, center)
    gram, is_good = _quick_gram(filters.flatten(2).float(), center)
    if not is_good.all():
        gram = gram.double()
        gram[~is_good] = _exact_gram(filters[~is_good], center)
    return gram


def _quick_gram(rows: Tensor, center: bool) -> tuple[Tensor, Tensor]:
    """From sums in float32, the mean taken off later; and for which filters five digits hold."""
    count, samples, features = rows.shape
    # two samples make one row: that halves the rounding and takes no longer
    pairs = rows.reshape(count, samples // 2, 2 * features)
    products, sums = pairs.mT @ pairs, pairs.sum(1)
    gram = products[:, :features, :features] + products[:, features:, features:]
    energy = remaining = _trace(gram)
    if center:
        total = sums[:, :features] + sums[:, features:]
        gram -= total[:, :, None] * total[:, None] / samples
        remaining = _trace(gram)
    return gram, (remaining > 0.1 * energy) & (remaining > 1e-25) & (energy < 1e30)


def _exact_gram(filters: Tensor, center: bool) -> Tensor:
    rows = exact(filters).flatten(2)
    if filters.dtype == torch.float64:  # the square of any other number has room in float64
        rows = rows / power_of_two_scale(rows.flatten(1).T)[:, None, None]
    samples, features = rows.shape[1:]
    mean = rows.mean(1, keepdim=True) if center else torch.zeros_like(rows[:, :1])
    rows = rows - mean
    gram = rows.mT @ rows if samples >= features else rows @ rows.mT
    rounding = (2 * samples * torch.finfo(rows.dtype).eps) ** 2
    constant = _trace(gram) <= rounding * samples * mean.square().sum((1, 2))
    return gram.masked_fill(constant[:, None, None], 0.0)


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)
