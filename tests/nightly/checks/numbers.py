"""float32 beside float64 for all that is public, gradients, and the same results again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..precision import comparison, determinism, gradients
from ..precision.cases import CASES
from ..precision.inputs import KINDS

TITLE = "Numbers"
MANY = 4096  # channels


def run() -> dict[str, Any]:
    """All comparisons; AssertionError or torch's GradcheckError where one is not as promised."""
    cases = {}
    for case in CASES:
        outcomes = {kind: comparison.compare(case, kind, MANY) for kind in case.kinds}
        cases[case.title] = comparison.figures(case, outcomes)
        worst = max(outcome.error for outcome in outcomes.values())
        print(f"  {case.title}: {len(outcomes)} kinds of numbers, {worst:.0e} at most", flush=True)
    checked = gradients.check_all()
    print(f"  gradcheck: {len(checked)} functions", flush=True)
    return {"cases": cases, "gradients": checked, "determinism": determinism.figures()}


def section(figures: Mapping[str, Any]) -> str:
    """What is promised, and a row for each comparison."""
    cases = figures["cases"]
    compared = sum(len(case["errors"]) for case in cases.values())
    return "\n\n".join(
        (
            f"**float32 beside float64.** {len(cases)} computations, which cover every public name"
            f" of `bsconv.pytorch` that has numbers, on {compared} inputs chosen to hurt:"
            f" {_kinds()}. An error is the largest difference relative to the largest entry of the"
            " float64 result (of a row, where filters or channels are independent). Results beyond"
            " float32 have to be infinite, NaN or a ValueError, never another number.",
            _table(cases),
            "Where batch statistics cancel a gradient, its error is relative to what it is with"
            " these held fixed. Left out are huge numbers before a `BatchNorm2d` that is training:"
            " above 1e19 the variance is beyond float32, and PyTorch's own layer then returns its"
            " bias. Sums and products below 1e-38, the smallest normal number, lose digits, in any"
            " convolution.",
            _gradients(figures["gradients"]),
            _determinism(figures["determinism"]),
        )
    )


def _kinds() -> str:
    said = {kind: text for kind, text in KINDS.items() if "channel" not in kind}
    listed = "; ".join(f"*{kind}*, {text}" for kind, text in said.items())
    return f"{listed}; *one channel*; *many channels*, {MANY}"


def _table(cases: Mapping[str, Any]) -> str:
    rows = [
        "| what is computed | largest error | on | promised | beyond float32 |",
        "|---|---|---|---|---|",
    ]
    for title, case in cases.items():
        bounds = {kind: case["bounds"].get(kind, case["bound"]) for kind in case["errors"]}
        worst = max(case["errors"], key=case["errors"].__getitem__)
        promised = sorted({f"{bound:.0e}" for bound in bounds.values()}, key=float)
        beyond = ", ".join(f"{kind}: {said}" for kind, said in case["overflows"].items())
        error = case["errors"][worst]
        cells = (title, f"{error:.1e}", worst if error else "", " to ".join(promised), beyond)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _gradients(titles: list[str]) -> str:
    return (
        f"**Gradients.** {len(titles)} functions agree with finite differences in float64"
        " (`torch.autograd.gradcheck`): both layers with each plan, with and without BatchNorm in"
        " training and eval mode, strided, dilated and padded otherwise; the penalty, also of rows"
        " that are orthonormal to the last bit, where it is zero and so is its gradient, of"
        " rank-deficient and of zero weights; `reg_loss` and `compose`. What `from_conv2d`,"
        " `to_conv2d` and the decompositions return is detached from what it was made of."
    )


def _determinism(found: Mapping[str, Any]) -> str:
    rows = ["| what is computed | one and two threads | promised |", "|---|---|---|"]
    for part, one in found["parts"].items():
        gap = f"differ by {one['difference']:.1e}" if one["difference"] else "bit-equal"
        bound = "nothing" if one["bound"] is None else f"{one['bound']:.0e}"
        rows.append(f"| {part} | {gap} | {bound} |")
    return (
        f"**The same again.** With the same seed, machine and number of threads, two processes give"
        f" the same bits: {found['tensors']} tensors of layers, penalty, spectra, projection and"
        " training, with one thread and with two. Another number of threads sums in another order:"
        "\n\n" + "\n".join(rows) + "\n\n"
        "Training multiplies any difference from step to step, so that runs with other numbers of"
        " threads end in other networks. What is chosen by measuring (plan `auto`,"
        " `optimize_for_inference`, how long runs are computed) may be chosen otherwise each time;"
        " `bsconv train --plan --precision --compile` fixes it, and a resumed run keeps it."
    )
