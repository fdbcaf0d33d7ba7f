"""Turn a pretrained dense network into a BSConv network that keeps what it can.

Three ways, each better than the one before: the closest *weights*; then BatchNorm's statistics
estimated again on unlabelled images; and, layer by layer, the weights with the closest *outputs*.
The forms of the layers are all one kind, or chosen one by one so that the network fits a budget.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, cast, overload

import torch
from torch import Tensor, nn

from .._tools.convs import IntOrPair
from .._tools.numerics import check_finite
from ..modules import BSConvS
from ..replacers import BSConvS_Replacer, BSConvU_Replacer
from ._batch_norm import reestimate_batch_norm
from ._budget import Budget, Prepare, Tables
from ._classifier_fit import find_head, refit_head
from ._costs import DENSE, Form, Geometry
from ._dense import Dense, study
from ._forms import dense as dense_kernel
from ._forms import factors_of
from ._inputs import LIMIT, Inputs, check_positive, read_inputs
from ._network_fit import NetworkFit
from ._plans import closest_layer, install
from ._progress import progress_bar
from ._report import (
    BudgetCurve,
    BudgetPoint,
    BudgetReport,
    Cost,
    LayerChoice,
    LayerProjection,
    Method,
    ProjectionReport,
)
from ._samples import Sampler

METHODS = ("weights", "batch_norm", "outputs")
COSTS = ("macs", "parameters", "time")
Kind = Literal["u", "s", "cp"]
Images = Tensor | Iterable[Any]


def project_pretrained(
    model: nn.Module,
    images: Images | None = None,
    kind: Kind | None = None,
    p: float | Fraction = 0.25,
    *,
    budget: float | None = None,
    of: Cost = "macs",
    align: int = 8,
    prepare: Prepare | None = None,
    method: Method | None = None,
    kernel_sizes: Sequence[IntOrPair] | None = ((3, 3), (5, 5)),
    exclude: Sequence[str] = (),
    batch_size: int = 50,
    positions: int = 64,
    limit: int = LIMIT,
    progress: bool = True,
) -> tuple[nn.Module, Any]:
    if budget is not None:
        if kind is not None:
            raise ValueError(f"budget needs kind=None, got budget={budget} and kind={kind!r}")
        if method not in (None, "outputs"):
            raise ValueError(f"budget needs method='outputs', got method={method!r}")
        _check_budgets(of, align, budget)
        if images is None:
            raise ValueError("budget needs images, got images=None")
        check_positive(batch_size=batch_size, positions=positions, limit=limit)
        return _within(model, read_inputs(images, limit), budget, of, align, prepare,
            kernel_sizes, exclude, Sampler(batch_size, positions), progress)  # fmt: skip
    method = _checked_method(method, images)
    check_positive(batch_size=batch_size, positions=positions, limit=limit, align=align)
    inputs = None if images is None else read_inputs(images, limit)
    teacher = copy.deepcopy(model).eval()
    replacer = _replacer(kind or "u", p, kernel_sizes, exclude)
    with torch.random.fork_rng(devices=[]):  # new layers draw weights, which are then replaced
        if kind == "cp":
            student, places, after = _shared(teacher, replacer, align)
        else:
            student = replacer.apply(copy.deepcopy(teacher)).eval()
            assert replacer.report is not None
            places = [layer.names for layer in replacer.report.replaced]
            after = {layer.name: layer.parameters_after for layer in replacer.report.replaced}
    kept = {
        own[0]: _weights_kept(teacher.get_submodule(own[0]), student.get_submodule(own[0]))
        for own in places
    }
    errors: dict[str, float] = {}
    if inputs is not None and method == "outputs":
        names = [own[0] for own in places if len(own) == 1]
        sampler = Sampler(batch_size, positions)
        dense = study(teacher, inputs, names, sampler, original=model)
        layers = {name: student.get_submodule(name) for name in dense.consumers}
        work = _works(dense)
        with progress_bar(sum(work.values()), progress) as advance:
            fit = NetworkFit(dense, layers, lambda name: advance(work[name]))
            fit.run(student, inputs)
        errors = fit.errors
        _refit(dense, student)
    elif inputs is not None and method == "batch_norm":
        with torch.no_grad():
            reestimate_batch_norm(student, images, batch_size=batch_size)
    report = ProjectionReport(
        layers=tuple(
            LayerProjection(
                name=own[0],
                parameters_before=sum(p.numel() for p in teacher.get_submodule(own[0]).parameters()),
                parameters_after=after[own[0]],
                weights_kept=kept[own[0]],
                output_error=errors.get(own[0]),
            )
            for own in places
        ),
        method=method,
        images=0 if inputs is None else len(inputs),
        agreement=None if inputs is None else _agreement(teacher, student, inputs, batch_size),
        plan={name: str(_form_of(student.get_submodule(name))) for own in places for name in own},
    )
    return student, report


def _shared(teacher, replacer, align):
    chosen = [layer for layer in replacer.plan(teacher).replaced if len(layer.names) == 1]
    layers = {}
    for layer in chosen:
        conv = teacher.get_submodule(layer.name)
        geometry = Geometry.of(conv, (0, 1, 1), (0, 1, 1))
        rank = (geometry.parameters(Form("u")) - conv.out_channels * (conv.bias is not None)) // (
            geometry.parameters(Form("cp", 1)) - conv.out_channels * (conv.bias is not None)
        )
        rank = max(align, rank // align * align)
        layers[layer.name] = closest_layer(conv, Form("cp", rank))
    student = install(copy.deepcopy(teacher), layers).eval()
    after = {n: sum(p.numel() for p in layer.parameters()) for n, layer in layers.items()}
    return student, [layer.names for layer in chosen], after


def budget_curve(
    model: nn.Module,
    images: Images,
    budgets: Sequence[float] = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8),
    *,
    of: Cost = "macs",
    align: int = 8,
    prepare: Prepare | None = None,
    kernel_sizes: Sequence[IntOrPair] | None = ((3, 3), (5, 5)),
    exclude: Sequence[str] = (),
    batch_size: int = 50,
    positions: int = 64,
    limit: int = LIMIT,
    progress: bool = True,
) -> BudgetCurve:
    _check_budgets(of, align, *budgets)
    inputs = read_inputs(images, limit)
    _, found = _tabled(
        model, inputs, of, align, prepare, kernel_sizes, exclude, Sampler(batch_size, positions),
        progress,
    )  # fmt: skip
    points = []
    for budget in budgets:
        try:
            chosen = found.choose(budget)
        except ValueError:
            continue
        damage = sum(option.damage for option in chosen.values())
        forms = {name: str(option.form) for name, option in chosen.items()}
        points.append(BudgetPoint(budget, found.share(chosen), damage, forms))
    return BudgetCurve(tuple(points), of)


def _tabled(model, inputs, of, align, prepare, kernel_sizes, exclude, sampler, progress):
    teacher = copy.deepcopy(model).eval()
    plan = BSConvU_Replacer(kernel_sizes, exclude=exclude).plan(teacher)
    names = [layer.name for layer in plan.replaced if len(layer.names) == 1]
    if not names:
        raise ValueError("model needs a convolution that BSConv can replace, got none")
    tables = Tables(align, of, lambda name: None)
    dense = study(teacher, inputs, names, sampler, original=model, each=tables.add)
    return dense, tables.budget(dense, inputs, prepare)


def _within(
    model, inputs, budget, of, align, prepare, kernel_sizes, exclude, sampler, progress
) -> tuple[nn.Module, BudgetReport]:
    dense, found = _tabled(
        model, inputs, of, align, prepare, kernel_sizes, exclude, sampler, progress
    )
    chosen = found.choose(budget)
    student = copy.deepcopy(dense.model)
    with torch.random.fork_rng(devices=[]):
        new = {
            name: closest_layer(dense.conv(name), option.form)
            for name, option in chosen.items()
            if option.form != DENSE
        }
    student = install(student, new).eval()
    layers = {name: student.get_submodule(name) for name in dense.consumers}
    work = _works(dense)
    with progress_bar(sum(work.values()), progress) as advance:
        fit = NetworkFit(dense, layers, lambda name: advance(work[name]))
        fit.run(student, inputs)
    _refit(dense, student)
    report = BudgetReport(
        layers=tuple(
            LayerChoice(
                name,
                *option.form,
                found.geometries[name].macs(DENSE),
                found.geometries[name].macs(option.form),
                found.geometries[name].parameters(DENSE),
                found.geometries[name].parameters(option.form),
                option.damage,
                fit.errors[name],
            )
            for name, option in chosen.items()
        ),
        of=of,
        budget=budget,
        share=found.share(chosen),
        images=len(inputs),
        agreement=_agreement(dense.model, student, inputs, sampler.group_size),
        plan={name: str(option.form) for name, option in chosen.items() if option.form != DENSE},
    )
    return student, report


def _works(dense: Dense) -> dict[str, float]:
    return {name: kernel[0].numel() ** 2.0 for name, kernel in dense.kernels.items()}


def _refit(dense: Dense, student: nn.Module) -> None:
    head = find_head(dense.model, dense.inputs.first(2))
    if head is not None and type(student.get_submodule(head)) in (nn.Linear, nn.Conv2d):
        refit_head(dense.model, student, head, dense.inputs, dense.sampler.group_size)


def _form_of(layer: nn.Module) -> Form:
    from ._stand_in import BSConvCP

    if isinstance(layer, BSConvCP):
        return Form("cp", layer.pw1.out_channels)
    return Form("s", layer.pw1.out_channels) if isinstance(layer, BSConvS) else Form("u")


@torch.no_grad()
def _weights_kept(conv: nn.Module, layer: nn.Module) -> float:
    kernel = cast(nn.Conv2d, conv).weight.double()
    error = (dense_kernel(factors_of(layer)) - kernel).square().sum()
    energy = kernel.square().sum()
    return float(1 - error / energy) if energy > 0 else 1.0


@torch.no_grad()
def _agreement(
    teacher: nn.Module, student: nn.Module, inputs: Inputs, batch_size: int
) -> float | None:
    same = 0
    for batch in inputs.split(batch_size):
        expected, found = batch.run(teacher), batch.run(student)
        if not isinstance(expected, Tensor) or expected.dim() != 2:
            return None
        check_finite("the outputs", expected)
        same += int((expected.argmax(1) == found.argmax(1))[found.isfinite().all(1)].sum())
    return same / len(inputs)


def _replacer(
    kind: str,
    p: float | Fraction,
    kernel_sizes: Sequence[IntOrPair] | None,
    exclude: Sequence[str],
) -> BSConvU_Replacer | BSConvS_Replacer:
    options: dict[str, Any] = {"init": "project", "exclude": exclude}
    if kind in ("u", "cp"):
        return BSConvU_Replacer(kernel_sizes, **options)
    if kind == "s":
        return BSConvS_Replacer(kernel_sizes, p, **options)
    raise ValueError(f"kind needs to be 'u', 's' or 'cp', got kind={kind!r}")


def _checked_method(method: Method | None, images: Images | None) -> Method:
    if method is not None and method not in METHODS:
        names = ", ".join(map(repr, METHODS))
        raise ValueError(f"method needs to be one of {names}, got method={method!r}")
    if images is None and method in ("batch_norm", "outputs"):
        raise ValueError(f"method={method!r} needs images, got images=None")
    return method or ("weights" if images is None else "outputs")


def _check_budgets(of: Cost, align: int, *budgets: float) -> None:
    for budget in budgets:
        if not 0 < budget <= 1:
            raise ValueError(f"budget needs 0 < budget <= 1, got budget={budget!r}")
    if of not in COSTS:
        raise ValueError(f"of needs to be one of {', '.join(map(repr, COSTS))}, got of={of!r}")
    check_positive(align=align)
