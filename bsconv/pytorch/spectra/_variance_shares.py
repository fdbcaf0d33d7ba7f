"""How the variance of vectors spreads over their principal components: shares, largest first.

A filter is a set of vectors, a matrix (samples, features). Its shares are the eigenvalues of the
Gram matrix of the smaller side, divided by their sum.
"""

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from queue import Empty, SimpleQueue

import torch
from torch import Tensor

from .._tools.numerics import power_of_two_scale

CACHED = 2**17  # numbers in float64, 1 MiB, that stay near the processor between two steps
PIECE = 128  # matrices that a thread takes at a time
LONG = 128  # samples from which on sums in float32, twice as fast, are worth their rounding


@dataclass(frozen=True)
class Sums:
    """Sums of products in one precision, and between which bounds they are good enough."""

    dtype: torch.dtype
    fold: int  # samples side by side in a row
    cancellation: float  # share of the energy that has to remain without the mean
    comfortable: tuple[float, float]  # no square of what lies between them is lost


DOUBLE = Sums(torch.float64, 1, 1e-6, (1e-200, 1e200))  # ten digits at least
SINGLE = Sums(torch.float32, 2, 0.1, (1e-25, 1e30))  # five digits at least


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
    return torch.cat([_shares(gram(batch, center, at_once)).double() for batch in batches])


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
    sums = _sums_for(batch)
    gram, total = _moments(batch, at_once, sums)
    energy = remaining = _trace(gram)
    if center:
        gram.baddbmm_(total[:, :, None], total[:, None], alpha=-1 / batch[0].shape[1])
        remaining = _trace(gram)
    low, high = sums.comfortable
    good = (remaining > sums.cancellation * energy) & (remaining > low) & (energy < high)
    if not good.all():
        filters = [filter for piece in batch for filter in piece]
        for indices in torch.split((~good).nonzero().flatten(), at_once):
            chosen = torch.stack([filters[index] for index in indices.tolist()])
            prepared = _prepared(chosen, center)
            gram[indices] = (prepared.mT @ prepared).to(gram.dtype)
    return gram


def _sums_for(batch: list[Tensor]) -> Sums:
    samples, on_cpu = batch[0].shape[1], batch[0].device.type == "cpu"
    wide = any(piece.dtype == torch.float64 for piece in batch)
    worth_it = on_cpu and not wide and samples >= LONG and samples % SINGLE.fold == 0
    return SINGLE if worth_it and _float32_is_exact() else DOUBLE


def _float32_is_exact() -> bool:
    """Whether products are computed in float32, as they are unless a setting asks for less.

    Tried out on numbers that any shorter format rounds: the settings have several names.
    """
    values = torch.zeros(2, 16, 18, device="cpu", dtype=torch.float32)
    values[:, 0] = 1 + 2**-11
    return bool((torch.bmm(values.mT, values) == (1 + 2**-11) ** 2).all())


def _moments(batch: list[Tensor], at_once: int, sums: Sums) -> tuple[Tensor, Tensor]:
    """Sums over samples of products (n, features, features) and of features (n, features).

    Where two samples make one row, its matrices of 18 columns rather than 9 keep the processor
    busier, although half of the products are not wanted.
    """
    samples, features = batch[0].shape[1], batch[0].shape[2:].numel()
    empty = functools.partial(torch.empty, device=_device_for(batch[0]), dtype=sums.dtype)
    count = sum(map(len, batch))
    gram, total = empty(count, features, features), empty(count, features)
    end = 0
    for chunk in _chunks(batch, at_once, sums.dtype):
        begin, end = end, end + len(chunk)
        rows = chunk.to(gram).reshape(len(chunk), samples // sums.fold, sums.fold * features)
        products, row_sums = rows.mT @ rows, rows.sum(1)
        gram[begin:end] = products[:, :features, :features]
        total[begin:end] = row_sums[:, :features]
        for side in range(features, rows.shape[2], features):
            gram[begin:end] += products[:, side : side + features, side : side + features]
            total[begin:end] += row_sums[:, side : side + features]
    return gram, total


def _chunks(batch: list[Tensor], at_once: int, dtype: torch.dtype) -> Iterator[Tensor]:
    """Filters that are copied together; those that can be read where they lie, all at once."""
    for piece in batch:
        in_place = piece.dtype == dtype and piece.is_contiguous()
        yield from torch.split(piece, len(piece) if in_place else at_once)


def _small_gram(batch: list[Tensor], center: bool, at_once: int) -> Tensor:
    """The matrices (samples, samples) of all filters, up to a factor for each."""
    chunks = (chunk for piece in batch for chunk in torch.split(piece, at_once))
    prepared = (_prepared(chunk, center) for chunk in chunks)
    return torch.cat([filters @ filters.mT for filters in prepared])


def _prepared(filters: Tensor, center: bool) -> Tensor:
    """Filters of largest entry 1 to 2, then without their mean; zero where only rounding is left.

    They are divided by powers of two, which rounds nothing: of a filter whose mean is far larger
    than what differs, each digit counts.
    """
    filters = filters.to(_device_for(filters)).flatten(2).to(torch.float64)
    filters = filters / power_of_two_scale(filters.flatten(1).T)[:, None, None]
    if not center:
        return filters
    filters = filters - filters.mean(1, keepdim=True)
    rounding = 2 * filters.shape[1] * torch.finfo(filters.dtype).eps
    constant = filters.abs().amax(dim=(1, 2), keepdim=True) <= rounding
    return filters.masked_fill(constant, 0.0)


def _shares(gram: Tensor) -> Tensor:
    finite = _trace(gram).isfinite()[:, None]
    if not finite.all():
        gram = gram.where(finite[..., None], 0.0)
    values = _eigenvalues(gram).flip(1).clamp(min=0)
    total = values.sum(1, keepdim=True)
    alike = torch.zeros_like(values)
    alike[:, 0] = 1
    return torch.where(total > 0, values / total, alike).where(finite, torch.nan)


def _eigenvalues(gram: Tensor) -> Tensor:
    """LAPACK takes one small matrix after the other: several threads take them piece by piece."""
    pieces = torch.split(gram, PIECE)
    helpers = min(torch.get_num_threads(), len(pieces)) - 1
    if gram.device.type != "cpu" or helpers < 1:
        return torch.linalg.eigvalsh(gram)
    found = [gram] * len(pieces)
    waiting: SimpleQueue[int] = SimpleQueue()
    for number in range(len(pieces)):
        waiting.put(number)

    def work() -> None:
        with contextlib.suppress(Empty):
            while True:
                number = waiting.get_nowait()
                found[number] = torch.linalg.eigvalsh(pieces[number])

    others = [_pool(helpers, os.getpid()).submit(work) for _ in range(helpers)]
    work()  # this thread has a core of its own: others may have to wait for one
    for other in others:
        other.result()
    return torch.cat(found)


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Kept, as a thread's first call takes milliseconds; a forked process needs its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="bsconv-spectra")


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)


def _device_for(tensor: Tensor) -> torch.device:
    # Apple's GPUs have no float64
    return torch.device("cpu") if tensor.device.type == "mps" else tensor.device
