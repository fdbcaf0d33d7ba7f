"""float32 compared with float64 for all that is public, gradients, and the same results again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from helpers.reliability import Section
from nightly.precision import determinism, gradients
from nightly.precision.cases import CASES
from nightly.precision.comparison import Case, Outcome, compare
from nightly.precision.inputs import KINDS

pytestmark = pytest.mark.nightly

MANY = 4096  # channels


def test_float32_is_as_promised(section: Section) -> None:
    found = {case: {kind: compare(case, kind, MANY) for kind in case.kinds} for case in CASES}
    kinds = [f"*{kind}*, {text}" for kind, text in KINDS.items() if "channel" not in kind]
    section(
        "float32 compared with float64",
        f"{len(CASES)} computations, which cover every public name of `bsconv.pytorch` that has"
        f" numbers, on {sum(map(len, found.values()))} inputs chosen to hurt:"
        f" {'; '.join(kinds)}; *one channel*; *many channels*, {MANY}. An error is the largest"
        " difference relative to the largest entry of the float64 result (of a row, where filters"
        " or channels are independent). Results beyond float32 have to be infinite, NaN or a"
        " ValueError, never another number.\n\n"
        "| what is computed | largest error | on | promised | beyond float32 |\n"
        "|---|---|---|---|---|\n"
        + "\n".join(row(case, outcomes) for case, outcomes in found.items())
        + "\n\nWhere batch statistics cancel a gradient, its error is relative to what it is with"
        " these held fixed. Left out are huge numbers before a `BatchNorm2d` that is training:"
        " above 1e19 the variance is beyond float32, and PyTorch's own layer then returns its"
        " bias. Sums and products below 1e-38, the smallest normal number, lose digits, in any"
        " convolution.",
    )


def row(case: Case, outcomes: Mapping[str, Outcome]) -> str:
    worst = max(outcomes, key=lambda kind: outcomes[kind].error)
    error = outcomes[worst].error
    promised = sorted({f"{case.bound_for(kind):.0e}" for kind in outcomes}, key=float)
    beyond = [f"{kind}: {one.overflow}" for kind, one in outcomes.items() if one.overflow]
    on = worst if error else ""
    cells = (case.title, f"{error:.1e}", on, " to ".join(promised), ", ".join(beyond))
    return f"| {' | '.join(cells)} |"


def test_gradients_are_those_of_finite_differences(section: Section) -> None:
    section(
        "Gradients",
        f"{len(gradients.check_all())} functions agree with finite differences in float64"
        " (`torch.autograd.gradcheck`): both layers with each plan, with and without BatchNorm in"
        " training and eval mode, strided, dilated and padded otherwise; the penalty, also of rows"
        " that are orthonormal to the last bit, where it is zero and so is its gradient, of"
        " rank-deficient and of zero weights; `reg_loss` and `compose`. What `from_conv2d`,"
        " `to_conv2d` and the decompositions return is detached from what it was made of.",
    )


def test_the_same_seed_gives_the_same_results(section: Section) -> None:
    found = determinism.figures()
    rows = [f"| {part} | {gap(one)} | {bound(one)} |" for part, one in found["parts"].items()]
    section(
        "The same results again",
        "With the same seed, machine and number of threads, two processes give the same bits:"
        f" {found['tensors']} tensors of layers, penalty, spectra, projection and training, with"
        " one thread and with two. Another number of threads sums in another order:\n\n"
        "| what is computed | one and two threads | promised |\n|---|---|---|\n"
        + "\n".join(rows)
        + "\n\nTraining multiplies any difference from step to step, so that runs with other"
        " numbers of threads end in other networks. What is chosen by measuring (plan `auto`,"
        " `optimize_for_inference`, how long runs are computed) may be chosen otherwise each time;"
        " `bsconv train --plan --precision --compile` fixes it, and a resumed run keeps it.",
    )


def gap(one: Mapping[str, Any]) -> str:
    return f"differ by {one['difference']:.1e}" if one["difference"] else "bit-equal"


def bound(one: Mapping[str, Any]) -> str:
    return "nothing" if one["bound"] is None else f"{one['bound']:.0e}"
