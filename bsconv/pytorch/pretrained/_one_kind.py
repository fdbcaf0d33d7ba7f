"""Projections in which all layers have one form."""

import copy
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal, cast

import torch
from torch import nn

from .._tools.convs import IntOrPair
from .._tools.model_tree import parameter_count
from ..replacers import BSConvS_Replacer, BSConvU_Replacer
from ._answers import agreement, finish
from ._batch_norm import statistics_of
from ._costs import Form, Geometry
from ._dense import study
from ._forms import dense, factors_of, form_of
from ._inputs import Inputs, check_taken
from ._network_fit import NetworkFit
from ._plans import closest_layer, install
from ._progress import progress_bar
from ._report import LayerProjection, Method, ProjectionReport
from ._samples import Sampler

Kind = Literal["u", "s", "cp"]


def project_to_kind(
    model: nn.Module,
    inputs: Inputs | None,
    kind: Kind,
    p: float | Fraction,
    align: int,
    method: Method,
    kernel_sizes: Sequence[IntOrPair] | None,
    exclude: Sequence[str],
    sampler: Sampler,
    progress: bool,
) -> tuple[nn.Module, ProjectionReport]:
    """See :func:`project_pretrained`."""
    teacher = copy.deepcopy(model).eval()
    if inputs is not None:
        check_taken(teacher, inputs)
    options: dict[str, Any] = {"init": "project", "exclude": exclude}
    if kind == "s":
        replacer: Any = BSConvS_Replacer(kernel_sizes, p, **options)
    else:
        replacer = BSConvU_Replacer(kernel_sizes, **options)
    with torch.random.fork_rng(devices=[]):  # new layers draw weights, which are then replaced
        if kind == "cp":
            student, names = _shared(teacher, replacer, align)
        else:
            student = replacer.apply(copy.deepcopy(teacher)).eval()
            names = [layer.names for layer in replacer.report.replaced]
    kept = {own[0]: _weights_kept(teacher, student, own[0]) for own in names}
    errors: dict[str, float] = {}
    if inputs is not None and method == "outputs":
        own = [own[0] for own in names if len(own) == 1]
        errors = _fit(model, teacher, student, inputs, own, sampler, progress)
    elif inputs is not None and method == "batch_norm":
        statistics_of(student, inputs, sampler.group_size)
    report = ProjectionReport(
        layers=tuple(
            LayerProjection(
                name=own[0],
                parameters_before=parameter_count(teacher.get_submodule(own[0])),
                parameters_after=parameter_count(student.get_submodule(own[0])),
                weights_kept=kept[own[0]],
                output_error=errors.get(own[0]),
            )
            for own in names
        ),
        method=method,
        images=0 if inputs is None else len(inputs),
        agreement=agreement(teacher, student, inputs, sampler.group_size) if inputs else None,
        plan={name: str(form_of(student.get_submodule(name))) for own in names for name in own},
    )
    return student, report


def _fit(
    model: nn.Module,
    teacher: nn.Module,
    student: nn.Module,
    inputs: Inputs,
    names: Sequence[str],
    sampler: Sampler,
    progress: bool,
) -> dict[str, float]:
    known = study(teacher, inputs, names, sampler, original=model)
    with progress_bar(sum(map(known.work, known.consumers)), progress) as advance:
        fit = NetworkFit(known, student, lambda name: advance(known.work(name)))
        fit.run()
    finish(known, student)
    return fit.errors


def _shared(
    teacher: nn.Module, replacer: BSConvU_Replacer, align: int
) -> tuple[nn.Module, list[tuple[str, ...]]]:
    """BSConv-CP with as many parameters as the replacer's BSConv-U would have, or a few less."""
    replaced = replacer.plan(teacher).replaced
    names: list[tuple[str, ...]] = [own.names for own in replaced if len(own.names) == 1]
    layers = {}
    for name, *_ in names:
        conv = cast(nn.Conv2d, teacher.get_submodule(name))
        weights = Geometry.of(conv, (1, 1, 1), (1, 1, 1)).macs
        blueprints = weights(Form("u")) // weights(Form("cp", 1)) // align * align
        layers[name] = closest_layer(conv, Form("cp", max(blueprints, align)))
    return install(copy.deepcopy(teacher), layers).eval(), names


@torch.no_grad()
def _weights_kept(teacher: nn.Module, student: nn.Module, name: str) -> float:
    kernel = cast(nn.Conv2d, teacher.get_submodule(name)).weight.double()
    error = (dense(factors_of(student.get_submodule(name))) - kernel).square().sum()
    energy = kernel.square().sum()
    return float(1 - error / energy) if energy > 0 else 1.0
