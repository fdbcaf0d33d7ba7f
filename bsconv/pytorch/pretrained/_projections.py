"""Projections in which each layer has its own form, within a budget, or all have one."""

import copy
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import torch
from torch import nn

from .._tools.convs import Conv
from .._tools.model_tree import check_module, parameter_count, unwrapped
from .._tools.outside import apart_from, independent_copy
from ..modules import BlueprintLayer, BSConvCP
from ..replacers import BSConvS_Replacer, BSConvU_Replacer, Replacer
from ._batch_norm import statistics_of
from ._budget import Budget, budget_of, candidates
from ._forms import DENSE, Form, Geometry
from ._inputs import Images, read_inputs
from ._network_fit import agreement, fit_network, progress_bar
from ._options import Kind, Method, Options
from ._plans import install
from ._report import LayerProjection, ProjectionReport
from ._study import Study, study_of, work_of


@dataclass(frozen=True)
class Seen:
    """A network that was looked at, and what its layers may become."""

    original: nn.Module
    study: Study
    budget: Budget
    progress: bool

    def is_of(self, model: nn.Module) -> bool:
        """Whether this is the network as it was."""
        pairs = zip(
            model.state_dict().values(), self.study.model.state_dict().values(), strict=True
        )
        return self.original is model and all(torch.equal(now, then) for now, then in pairs)


def look_at(model: nn.Module, images: Images, options: Options) -> Seen:
    """The dense network, and what all forms of its layers cost and do."""
    teacher = _teacher(model)
    with apart_from(model):
        inputs = read_inputs(teacher, images, options.limit)
    plan = BSConvU_Replacer(options.kernel_sizes, **options.selection).plan(teacher)
    names = [layer.name for layer in plan.replaced if len(layer.names) == 1]
    if not names:
        raise ValueError("model needs a convolution that BSConv can replace, got none")
    work = sum(work_of(teacher.get_submodule(name)) for name in names)
    with progress_bar(work, options.progress) as advance:
        study = study_of(
            teacher, inputs, names, options.sampler(len(inputs)),
            forms=lambda layer: candidates(
                layer.geometry, options.align, by_macs=options.of != "parameters"
            ),
            done=lambda layer: advance(work_of(layer.conv)),
        )  # fmt: skip
    return Seen(model, study, budget_of(study, options.of, options.prepare), options.progress)


def project_within(seen: Seen, budget: float) -> tuple[nn.Module, ProjectionReport]:
    study = seen.study
    chosen = seen.budget.choose(budget)
    forms = {name: option.form for name, option in chosen.items() if option.form != DENSE}
    new = {name: form.layer(study.layers[name].conv) for name, form in forms.items()}
    student = install(copy.deepcopy(study.model), new).eval()
    errors = fit_network(study, student, seen.progress)
    layers = [
        _described(name, study.model, student, study, damage=o.damage, output_error=errors[name])
        for name, o in chosen.items()
    ]
    report = ProjectionReport(
        layers=tuple(layers),
        method="outputs",
        images=len(study.inputs),
        agreement=agreement(study.model, student, study.inputs, study.sampler.group_size),
        plan={name: str(form) for name, form in forms.items()},
        of=seen.budget.of,
        budget=budget,
        share=seen.budget.share(chosen),
        kept=tuple(name for name in study.names if name not in study.layers),
    )
    return student, report


def project_to_kind(
    model: nn.Module,
    images: Images | None,
    kind: Kind,
    p: float | Fraction,
    method: Method,
    options: Options,
) -> tuple[nn.Module, ProjectionReport]:
    teacher, inputs = _teacher(model), None
    if images is not None:
        with apart_from(model):
            inputs = read_inputs(teacher, images, options.limit)
    chosen: dict[str, Any] = {"init": "project", **options.selection}
    if kind == "cp":
        chosen["dimensions"] = (2,)
    replacer: Replacer = (
        BSConvS_Replacer(options.kernel_sizes, p, **chosen)
        if kind == "s"
        else BSConvU_Replacer(options.kernel_sizes, **chosen)
    )
    if kind == "cp":
        student, names = _shared(teacher, replacer, options.align)
    else:
        names = [layer.names for layer in replacer.plan(teacher).replaced]
        student = replacer.apply(copy.deepcopy(teacher)).eval()
    kept = {own[0]: _weights_kept(teacher, student, own[0]) for own in names}
    study, errors = None, {}
    if inputs is not None and method == "outputs":
        single = [own[0] for own in names if len(own) == 1]
        study = study_of(teacher, inputs, single, options.sampler(len(inputs)))
        errors = fit_network(study, student, options.progress)
    elif inputs is not None and method == "batch_norm":
        statistics_of(student, inputs, options.batch_size)
    layers = [
        _described(
            name, teacher, student, study, weights_kept=kept[name], output_error=errors.get(name)
        )
        for name, *_ in names
    ]
    report = ProjectionReport(
        layers=tuple(layers),
        method=method,
        images=0 if inputs is None else len(inputs),
        agreement=agreement(teacher, student, inputs, options.batch_size) if inputs else None,
        plan={name: str(Form.of(student.get_submodule(name))) for own in names for name in own},
    )
    return student, report


def _teacher(model: nn.Module) -> nn.Module:
    check_module(model)
    return independent_copy(unwrapped(model)).eval()


def _shared(
    teacher: nn.Module, replacer: Replacer, align: int
) -> tuple[nn.Module, list[tuple[str, ...]]]:
    """BSConv-CP with as many parameters as the replacer's BSConv-U would have, or a few less."""
    names = [layer.names for layer in replacer.plan(teacher).replaced]
    names = [own for own in names if len(own) == 1]
    if not names:
        raise ValueError("kind='cp' needs a Conv2d that BSConv-CP can replace, got none")
    layers = {}
    for name, *_ in names:
        conv = cast(nn.Conv2d, teacher.get_submodule(name))
        weights = Geometry.of(conv, (1, 1, 1), (1, 1, 1)).macs
        blueprints = weights(Form("u")) // weights(Form("cp", 1)) // align * align
        layers[name] = BSConvCP.from_conv(conv, blueprints=max(blueprints, align))
    return install(copy.deepcopy(teacher), layers).eval(), names


def _described(
    name: str, teacher: nn.Module, student: nn.Module, study: Study | None, **found: Any
) -> LayerProjection:
    """One layer before and after."""
    old, new = teacher.get_submodule(name), student.get_submodule(name)
    form = Form.of(new)
    layer = study.layers.get(name) if study else None
    macs = [layer.geometry.macs(f) for f in (DENSE, form)] if layer else [None, None]
    return LayerProjection(
        name, form.kind, form.rank, parameter_count(old), parameter_count(new), *macs, **found
    )


def _weights_kept(teacher: nn.Module, student: nn.Module, name: str) -> float:
    kernel = cast(Conv, teacher.get_submodule(name)).weight.detach().double()
    layer = cast(BlueprintLayer, student.get_submodule(name))
    error = (layer.to_conv().weight.detach() - kernel).square().sum()
    energy = kernel.square().sum()
    return float(1 - error / energy) if energy > 0 else 1.0
