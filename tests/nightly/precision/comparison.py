"""One function in float32 compared with the same in float64, and how far apart they may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .inputs import KINDS

SMALLEST = torch.finfo(torch.float32).tiny  # below it, float32 loses digits and then all
Results = Mapping[str, Tensor]
Compute = Callable[[str, torch.dtype, int], Results]
CASES: list[Case] = []  # all of them, once their modules are imported


class BrokenPromise(AssertionError):
    """float32 is further from float64 than stated, or not a number where it should be one."""


@dataclass(frozen=True, eq=False)
class Case:
    """What is computed, for which kinds of numbers, and what is promised of it.

    ``compute(kind, dtype, many)`` gives named tensors, on the same numbers in both precisions. The
    error of each is its largest difference relative to its largest entry; those named ``by_rows``
    are compared row by row along the first dimension. ``floors(kind, many)`` are least sizes to be
    relative to, where large terms cancel.

    ``bounds`` are looser ones, for some kinds. ``overflows`` are kinds whose results, or what is
    computed on the way, are beyond float32: infinity, NaN or a ValueError is what they have to be
    where they are no right number.
    """

    title: str
    covers: tuple[str, ...]
    compute: Compute
    kinds: tuple[str, ...]
    bound: float = 1e-5
    bounds: Mapping[str, float] = field(default_factory=dict)
    overflows: tuple[str, ...] = ()
    by_rows: tuple[str, ...] = ()
    floors: Callable[[str, int], Mapping[str, float]] = lambda kind, many: {}

    def bound_for(self, kind: str) -> float:
        return self.bounds.get(kind, self.bound)


def case(
    title: str, *covers: str, kinds: Sequence[str] = tuple(KINDS), **promised: Any
) -> Callable[[Compute], Compute]:
    """Make the function a case, which `CASES` lists."""

    def listed(compute: Compute) -> Compute:
        CASES.append(Case(title, covers, compute, tuple(kinds), **promised))
        return compute

    return listed


@dataclass(frozen=True)
class Outcome:
    """``error`` over all tensors; ``overflow`` says how float32 tells what it has no number for."""

    error: float
    overflow: str = ""


def compare(case: Case, kind: str, many: int) -> Outcome:
    """The outcome of one case on one kind of numbers; BrokenPromise if it is not as promised."""
    where = f"{case.title}, {kind}"
    double = _attempt(case, kind, torch.float64, many)
    single = _attempt(case, kind, torch.float32, many)
    if isinstance(double, str):
        if single != double:
            raise BrokenPromise(f"{where}: float64 is refused ({double}), float32 is {single}")
        return Outcome(0.0, "refused in float64 too")
    if isinstance(single, str):
        if kind not in case.overflows:
            raise BrokenPromise(f"{where}: refused in float32 alone: {single}")
        return Outcome(0.0, "ValueError")
    error, overflow = 0.0, ""
    floors = case.floors(kind, many)
    for name, expected in double.items():
        floor = max(floors.get(name, 0), SMALLEST)
        one = _error(single[name], expected, floor, by_rows=name in case.by_rows)
        error = max(error, one)
        if not one <= case.bound_for(kind):
            raise BrokenPromise(f"{where}: {name} differs by {one:.1e}, bound {case.bound:.0e}")
        if not single[name].isfinite().all():
            overflow = "inf or NaN"
            if kind not in case.overflows:
                raise BrokenPromise(f"{where}: {name} is infinite or NaN")
    return Outcome(error, overflow)


def _attempt(case: Case, kind: str, dtype: torch.dtype, many: int) -> Results | str:
    try:
        return case.compute(kind, dtype, many)
    except ValueError as error:
        return f"ValueError: {error}"


def _error(found: Tensor, expected: Tensor, floor: float, *, by_rows: bool) -> float:
    """Of the entries where ``found`` is a number; infinite where ``expected`` is none."""
    if found.shape != expected.shape:
        raise BrokenPromise(f"shapes {tuple(found.shape)} and {tuple(expected.shape)}")
    found, expected = (_rows(tensor.detach(), by_rows) for tensor in (found, expected))
    is_number = found.isfinite()
    largest = expected.abs().amax(1, keepdim=True).clamp_min(floor)
    difference = (found / largest - expected / largest).abs()
    difference = torch.where(is_number, difference, 0.0)
    return float(difference.nan_to_num(nan=torch.inf).max()) if difference.numel() else 0.0


def _rows(tensor: Tensor, by_rows: bool) -> Tensor:
    return tensor.double().reshape(len(tensor) if by_rows else 1, -1)
