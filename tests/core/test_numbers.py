"""float32 against float64 on numbers chosen to hurt, gradients, and the same results again."""

import dataclasses
import pkgutil
from collections.abc import Mapping
from importlib import import_module

import pytest
import torch
from torch import Tensor, nn

import bsconv.pytorch
from bsconv.pytorch import BSConvS, BSConvU
from bsconv.pytorch.decomposition import blueprint_factors, subspace_factors
from bsconv.pytorch.regularization import orthonormality_penalty
from nightly.precision import determinism, gradients
from nightly.precision.cases import CASES, WITHOUT_NUMBERS
from nightly.precision.comparison import BrokenPromise, Case, compare
from nightly.precision.inputs import KINDS, channels, numbers

MANY = 64  # channels; the nightly check takes 4096


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_float32_is_as_promised(case: Case) -> None:
    outcomes = {kind: compare(case, kind, MANY) for kind in case.kinds}
    # ordinary numbers are compared, not refused
    assert not outcomes["ordinary"].overflow
    assert outcomes.keys() <= KINDS.keys()


def public_names() -> dict[str, object]:
    """Functions and classes of bsconv.pytorch and of its public modules."""
    names = {name: getattr(bsconv.pytorch, name) for name in bsconv.pytorch.__all__}
    for found in pkgutil.iter_modules(bsconv.pytorch.__path__):
        if not found.name.startswith("_"):
            module = import_module(f"bsconv.pytorch.{found.name}")
            own = {
                name
                for name, value in vars(module).items()
                if getattr(value, "__module__", "") == module.__name__
            }
            listed = getattr(module, "__all__", own)
            names |= {name: getattr(module, name) for name in listed if not name.startswith("_")}
    return {name: value for name, value in names.items() if callable(value)}


def test_every_public_name_is_compared_or_has_no_numbers() -> None:
    covered = {name for case in CASES for name in case.covers}
    known = public_names()
    assert set(bsconv.pytorch.__all__) <= known.keys()
    missing = known.keys() - covered - WITHOUT_NUMBERS.keys()
    assert missing == set(), "give each a case, or say why it has no numbers"
    assert covered & WITHOUT_NUMBERS.keys() == set()
    gone = (covered | WITHOUT_NUMBERS.keys()) - known.keys() - {"BlockPlan", "ModificationPlan"}
    assert gone == set()


# the comparison itself


def pair(single: list[float], double: list[float], **options: object) -> Case:
    """A case whose results are these numbers."""

    def compute(kind: str, dtype: torch.dtype, many: int) -> Mapping[str, Tensor]:
        return {"x": torch.tensor(single if dtype == torch.float32 else double, dtype=dtype)}

    return Case("pair", (), compute, ("ordinary",), **{"overflows": ("ordinary",), **options})


INFINITE, NONE = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("single", "double", "error", "overflow"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0, ""),
        ([1.0, 2.00001], [1.0, 2.0], 5e-6, ""),
        ([1.00001, 2.0], [1.0, 2.0], 5e-6, ""),  # relative to the largest
        ([0.0], [1e-60], 0, ""),  # too small for float32
        ([INFINITE, 1.0], [1e60, 1.0], 0, "inf or NaN"),
        ([NONE, 1.0], [1e60, 1.0], 0, "inf or NaN"),
        ([NONE], [NONE], 0, "inf or NaN"),
    ],
)
def test_what_is_close_enough(
    single: list[float], double: list[float], error: float, overflow: str
) -> None:
    outcome = compare(pair(single, double), "ordinary", 1)
    assert outcome.error == pytest.approx(error, rel=0.05)
    assert outcome.overflow == overflow


@pytest.mark.parametrize(
    ("single", "double", "options", "message"),
    [
        ([1.0, 2.0001], [1.0, 2.0], {}, "x differs by 5.0e-05, bound 1e-05"),
        ([0.0, 1.0], [1e60, 1.0], {}, "x differs"),  # a number in place of one beyond float32
        ([3e38], [1e60], {}, "x differs"),
        ([0.0], [1e-30], {}, "x differs by 1.0e.00"),
        ([1.0], [NONE], {}, "x differs"),
        ([1.0], [INFINITE], {}, "x differs"),
        ([INFINITE], [1.0], {"overflows": ()}, "x is infinite or NaN"),
        ([1.0, 2.0], [1.0], {}, "shapes"),
        ([1.0, 1e-3], [1.0, 1.1e-3], {"by_rows": ("x",), "bound": 1e-2}, "x differs by 9.1e-02"),
    ],
)
def test_what_is_not(
    single: list[float], double: list[float], options: dict[str, object], message: str
) -> None:
    with pytest.raises(BrokenPromise, match=message):
        compare(pair(single, double, **options), "ordinary", 1)


def test_bounds_and_floors_are_those_of_the_case() -> None:
    case = pair([1.001], [1.0], bounds={"ordinary": 1e-2})
    assert compare(case, "ordinary", 1).error == pytest.approx(1e-3, rel=0.01)
    case = pair([1e-9], [1e-10], floors=lambda kind, many: {"x": 1.0})
    assert compare(case, "ordinary", 1).error == pytest.approx(9e-10)


@pytest.mark.parametrize("refused", [torch.float32, torch.float64])
def test_refusals_are_of_both_or_because_of_overflow(refused: torch.dtype) -> None:
    def compute(kind: str, dtype: torch.dtype, many: int) -> Mapping[str, Tensor]:
        if dtype == refused:
            raise ValueError("too large")
        return {"x": torch.ones(1, dtype=dtype)}

    case = Case("pair", (), compute, ("ordinary",))
    with pytest.raises(BrokenPromise, match="refused"):
        compare(case, "ordinary", 1)
    told = dataclasses.replace(case, overflows=("ordinary",))
    if refused == torch.float32:
        assert compare(told, "ordinary", 1).overflow == "ValueError"
    else:
        with pytest.raises(BrokenPromise, match="float64 is refused"):
            compare(told, "ordinary", 1)


def test_inputs_are_what_they_are_called() -> None:
    for kind in KINDS:
        count = channels(kind, MANY)
        drawn = numbers(kind, 6, count, 3, 3)
        assert drawn.shape == (6, count, 3, 3)
        assert drawn.dtype == torch.float32
        assert drawn.isfinite().all()
        assert torch.equal(drawn, numbers(kind, 6, count, 3, 3))
    assert numbers("largest", 6, 8, 3, 3).abs().max() == torch.finfo(torch.float32).max
    assert 0 < numbers("subnormal", 6, 8, 3, 3).abs().max() < torch.finfo(torch.float32).tiny
    assert torch.linalg.matrix_rank(numbers("rank-deficient", 6, 8)) == 2
    for mixed in (0, 1):
        drawn = numbers("mixed scales", 6, 8, 3, 3, mixed=mixed).transpose(0, mixed).flatten(1)
        assert drawn[-1].norm() > 1e17 * drawn[0].norm()
    assert channels("one channel", MANY) == 1
    assert channels("many channels", MANY) == MANY


# gradients


@pytest.mark.slow
def test_gradients_agree_with_finite_differences() -> None:
    checked = gradients.check_all(gradients.GEOMETRIES[1:2])
    plans = ("factored", "joined", "narrow", "merged")
    for plan in plans:
        assert any(title.startswith(f"BSConvS, {plan},") for title in checked)
    assert any("narrow, BatchNorm in training" in title for title in checked)
    assert "penalty, orthonormal basis" in checked


def test_the_gradient_of_the_penalty_is_bounded_where_only_rounding_is_left() -> None:
    """At orthonormal rows the penalty has a kink: its slope is that of rounding, but no larger."""
    for dtype in (torch.float32, torch.float64):
        rows = torch.linalg.qr(torch.randn(64, 16, dtype=dtype)).Q.T.contiguous().requires_grad_()
        penalty = orthonormality_penalty(rows)
        penalty.backward()
        assert penalty < 100 * torch.finfo(dtype).eps
        assert rows.grad is not None
        # || 2 E B || / || E || is at most twice the largest singular value, which is one
        assert rows.grad.norm() < 2 * (1 + 1e-3)


def test_what_approximates_is_detached() -> None:
    conv = nn.Conv2d(8, 8, 3)
    kernel = conv.weight
    for factors in (blueprint_factors(kernel), subspace_factors(kernel, 2)):
        assert not any(factor.requires_grad for factor in factors)
    for layer in (BSConvU.from_conv2d(conv), BSConvS.from_conv2d(conv)):
        assert all(parameter.is_leaf for parameter in layer.parameters())
        assert all(parameter.is_leaf for parameter in layer.to_conv2d().parameters())


# the same again

PARTS = (
    "layers, forward and backward",
    "penalty and its gradient",
    "spectra",
    "from_conv2d",
    "training, one step",
)


@pytest.mark.slow
def test_results_are_the_same_again_and_close_with_other_threads() -> None:
    """Bit for bit in another process; with two threads, sums have another order."""
    here = determinism.work(PARTS)
    changed = determinism.differences(here, determinism.in_process(1, PARTS))
    assert changed == dict.fromkeys(PARTS, 0.0)
    across = determinism.differences(here, determinism.in_process(2, PARTS))
    for part, gap in across.items():
        assert gap <= determinism.BOUNDS[part], part


def test_a_changed_bit_is_a_difference() -> None:
    first = {"spectra/a": torch.ones(3), "spectra/b": torch.zeros(2)}
    second = {**first, "spectra/a": torch.tensor([1.0, 1.0, 1 + 2**-23])}
    assert determinism.differences(first, first) == {"spectra": 0.0}
    assert determinism.differences(first, second) == {"spectra": pytest.approx(2**-23)}
    nothing = {**first, "spectra/b": torch.full((2,), float("nan"))}
    assert determinism.differences(first, nothing)["spectra"] == float("inf")
    with pytest.raises(AssertionError, match="other results"):
        determinism.differences(first, {"spectra/a": torch.ones(3)})
