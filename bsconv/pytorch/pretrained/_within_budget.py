"""Projections in which each layer has its own form, so that the network keeps to a budget."""

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from .._tools.convs import IntOrPair
from .._tools.model_tree import parameter_count
from ..replacers import BSConvU_Replacer
from ._answers import agreement, finish
from ._budget import Budget, TableMaker
from ._costs import DENSE
from ._dense import Dense, study
from ._inputs import Inputs, check_taken
from ._network_fit import NetworkFit
from ._plans import install, layer_to_fit
from ._progress import progress_bar
from ._rank_tables import Option
from ._report import BudgetCurve, BudgetPoint, BudgetReport, Cost, LayerChoice
from ._samples import Sampler
from ._timing import Prepare

TABLE_WORK = 3.0  # of a layer, relative to that of its fit


class Choice(NamedTuple):
    """What decides about the forms of layers, see :func:`project_pretrained`."""

    of: Cost
    align: int
    prepare: Prepare | None
    kernel_sizes: Sequence[IntOrPair] | None
    exclude: Sequence[str]
    sampler: Sampler
    progress: bool


def project_within(
    model: nn.Module, inputs: Inputs, budget: float, choice: Choice
) -> tuple[nn.Module, BudgetReport]:
    """See :func:`project_pretrained`."""
    dense, found = _looked_at(model, inputs, choice)
    chosen = found.choose(budget)
    student = copy.deepcopy(dense.model)
    with torch.random.fork_rng(devices=[]):  # new layers draw weights, which are then replaced
        new = {
            name: layer_to_fit(dense.conv(name), option.form)
            for name, option in chosen.items()
            if option.form != DENSE
        }
    student = install(student, new).eval()
    with progress_bar(sum(map(dense.work, dense.consumers)), choice.progress) as advance:
        fit = NetworkFit(dense, student, lambda name: advance(dense.work(name)))
        fit.run()
    finish(dense, student)
    report = BudgetReport(
        layers=_choices(dense, chosen, fit.errors),
        of=choice.of,
        budget=budget,
        share=found.share(chosen),
        images=len(inputs),
        agreement=agreement(dense.model, student, inputs, choice.sampler.group_size),
        plan={name: str(option.form) for name, option in chosen.items() if name in new},
    )
    return student, report


def curve_of(
    model: nn.Module, inputs: Inputs, budgets: Sequence[float], choice: Choice
) -> BudgetCurve:
    """See :func:`budget_curve`."""
    _, found = _looked_at(model, inputs, choice)
    points = []
    for budget in budgets:
        if chosen := found.within(budget):
            damage = sum(option.damage for option in chosen.values())
            forms = {name: str(option.form) for name, option in chosen.items()}
            points.append(BudgetPoint(budget, found.share(chosen), damage, forms))
    return BudgetCurve(tuple(points), choice.of)


def _looked_at(model: nn.Module, inputs: Inputs, choice: Choice) -> tuple[Dense, Budget]:
    """The dense network, and what all forms of its layers cost and do."""
    teacher = copy.deepcopy(model).eval()
    check_taken(teacher, inputs)
    plan = BSConvU_Replacer(choice.kernel_sizes, exclude=choice.exclude).plan(teacher)
    names = [layer.name for layer in plan.replaced if len(layer.names) == 1]
    if not names:
        raise ValueError("model needs a convolution that BSConv can replace, got none")
    work = {name: parameter_count(teacher.get_submodule(name)) for name in names}
    with progress_bar(sum(work.values()), choice.progress) as advance:
        tables = TableMaker(choice.of, choice.align, lambda name: advance(work[name]))
        dense = study(teacher, inputs, names, choice.sampler, original=model, each=tables.add)
    return dense, tables.budget(dense, choice.prepare)


def _choices(
    dense: Dense, chosen: Mapping[str, Option], errors: Mapping[str, float]
) -> tuple[LayerChoice, ...]:
    layers = []
    for name, option in chosen.items():
        geometry, form = dense.geometry(name), option.form
        layers.append(
            LayerChoice(
                name=name,
                form=form.kind,
                rank=form.rank,
                macs_before=geometry.macs(DENSE),
                macs_after=geometry.macs(form),
                parameters_before=geometry.parameters(DENSE),
                parameters_after=geometry.parameters(form),
                damage=option.damage,
                output_error=errors[name],
            )
        )
    return tuple(layers)
