"""How the variance of vectors spreads over their principal components: shares, largest first.

A filter is a set of vectors, a matrix (samples, features). Its shares are the eigenvalues of the
Gram matrix of the smaller side, divided by their sum.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod

import torch
from torch import Tensor

CACHED = 2**17  # numbers in float64, 1 MiB, that stay near the processor between two steps
WORTH_A_THREAD = 64  # matrices
CANCELLATION = 1e-6  # of the energy; what remains has ten digits at least
COMFORTABLE = 1e-200, 1e200  # no square of what lies between them is lost


def shares_of(filters: Iterable[Tensor], size: Sequence[int], center: bool, memory: int) -> Tensor:
    """Shares (n, min(samples, features)) in float64, of the filters of several tensors in a row.

    Each tensor is (some of n, samples, ...), all on one device, ``size`` what follows the first
    dimension; the next tensor is taken when it is needed. A filter without variance has the shares
    1, 0, 0, ..., one that is not finite NaN. At most twice ``memory``, in bytes, is in use at a
    time, or what one filter takes.
    """
    samples, features = size[0], prod(size[1:])
    at_once = max(1, min(CACHED, memory // 32) // (samples * features))
    capacity = max(1, memory // 16 // min(samples, features) ** 2)
    gram = _gram if samples >= features else _small_gram
    batches = _batches(filters, capacity)
    return torch.cat([_shares(gram(batch, center, at_once)) for batch in batches])


def _batches(filters: Iterable[Tensor], capacity: int) -> Iterator[list[Tensor]]:
    """So many filters at a time, whichever tensors they come from."""
    batch: list[Tensor] = []
    free = capacity
    for tensor in filters:
        rest = tensor
        while len(rest):
            batch.append(rest[:free])
            rest, free = rest[free:], free - len(batch[-1])
            if not free:
                yield batch
                batch, free = [], capacity
    if batch:
        yield batch


def _gram(batch: list[Tensor], center: bool, at_once: int) -> Tensor:
    """The matrices (features, features) of all filters, up to a factor for each.

    The mean is taken from the sums afterwards: that is faster than to subtract it from the samples,
    and as good where it is not overwhelming.
    """
    gram, total = _moments(batch, at_once)
    energy = remaining = _trace(gram)
    if center:
        gram.baddbmm_(total[:, :, None], total[:, None], alpha=-1 / batch[0].shape[1])
        remaining = _trace(gram)
    low, high = COMFORTABLE
    good = (remaining > CANCELLATION * energy) & (remaining > low) & (energy < high)
    if not good.all():
        filters = [filter for piece in batch for filter in piece]
        for indices in torch.split((~good).nonzero().flatten(), at_once):
            chosen = torch.stack([filters[index] for index in indices.tolist()])
            prepared = _prepared(chosen, center)
            gram[indices] = prepared.mT @ prepared
    return gram


def _moments(batch: list[Tensor], at_once: int) -> tuple[Tensor, Tensor]:
    """Sums over samples of products (n, features, features) and of features (n, features)."""
    samples, features = batch[0].shape[1], batch[0].shape[2:].numel()
    empty = functools.partial(torch.empty, device=_device_for(batch[0]), dtype=torch.float64)
    values = empty((at_once, samples, features))
    count = sum(map(len, batch))
    gram = empty((count, features, features))
    total = empty((count, features))
    end = 0
    for chunk in (chunk for piece in batch for chunk in torch.split(piece, at_once)):
        begin, end = end, end + len(chunk)
        filters = values[: len(chunk)].copy_(chunk.to(values.device).flatten(2))
        torch.bmm(filters.mT, filters, out=gram[begin:end])
        torch.sum(filters, 1, out=total[begin:end])
    return gram, total


def _small_gram(batch: list[Tensor], center: bool, at_once: int) -> Tensor:
    """The matrices (samples, samples) of all filters, up to a factor for each."""
    chunks = (chunk for piece in batch for chunk in torch.split(piece, at_once))
    prepared = (_prepared(chunk, center) for chunk in chunks)
    return torch.cat([filters @ filters.mT for filters in prepared])


def _prepared(filters: Tensor, center: bool) -> Tensor:
    """Filters of largest entry 1, then without their mean; all zero where only rounding is left."""
    filters = filters.to(_device_for(filters)).flatten(2).to(torch.float64)
    largest = filters.abs().amax(dim=(1, 2), keepdim=True)
    filters = filters / torch.where(largest > 0, largest, 1.0)
    if not center:
        return filters
    filters = filters - filters.mean(1, keepdim=True)
    rounding = filters.shape[1] * torch.finfo(filters.dtype).eps
    constant = filters.abs().amax(dim=(1, 2), keepdim=True) <= rounding
    return filters.masked_fill(constant, 0.0)


def _shares(gram: Tensor) -> Tensor:
    finite = _trace(gram).isfinite()[:, None]
    values = _eigenvalues(gram.where(finite[..., None], 0.0)).flip(1).clamp(min=0)
    total = values.sum(1, keepdim=True)
    alike = torch.zeros_like(values)
    alike[:, 0] = 1
    return torch.where(total > 0, values / total, alike).where(finite, torch.nan)


def _eigenvalues(gram: Tensor) -> Tensor:
    threads = min(torch.get_num_threads(), len(gram) // WORTH_A_THREAD)
    if gram.device.type != "cpu" or threads < 2:
        return torch.linalg.eigvalsh(gram)
    with ThreadPoolExecutor(threads) as pool:  # LAPACK takes one small matrix after the other
        return torch.cat(list(pool.map(torch.linalg.eigvalsh, gram.chunk(threads))))


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)


def _device_for(tensor: Tensor) -> torch.device:
    # Apple's GPUs have no float64
    return torch.device("cpu") if tensor.device.type == "mps" else tensor.device
