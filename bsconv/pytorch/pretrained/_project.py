"""Turn a pretrained dense network into a BSConv network that keeps what it can.

Three ways, each better than the one before: the closest *weights*; then BatchNorm's statistics
estimated again on unlabelled images; and, layer by layer, the weights with the closest *outputs*.
The layers all have one form, or each has its own, so that the network keeps to a budget.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from inspect import signature
from numbers import Real
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from .._forms.form import DENSE, Form
from .._forms.patches import Sampler
from .._forms.plans import install, tied
from .._tools.convs import IntOrTuple
from .._tools.model_tree import check_module, parameter_count, unwrapped
from .._tools.outside import apart_from, independent_copy
from ..modules import BSConvCP
from ..replacers import BSConvS_Replacer, BSConvU_Replacer, Replacer
from ._batch_norm import set_statistics
from ._budget import Budget, budget_of, candidates
from ._inputs import LIMIT, Images, Inputs, check_positive, read_inputs
from ._report import BudgetCurve, Cost, Kind, LayerProjection, Method, ProjectionReport
from ._study import Study

Names = list[tuple[str, ...]]  # of each layer
Sizes = Sequence[IntOrTuple] | None
Found = Mapping[str, Mapping[str, float]]  # fields of LayerProjection by the first of its names
USUAL = ((3, 3), (5, 5))  # sizes of kernels
BUDGETS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@torch.inference_mode(False)
def project_pretrained(
    model: nn.Module,
    images: Images | BudgetCurve | None = None,
    kind: Kind | None = None,
    p: float | Fraction = 0.25,
    *,
    budget: float | Fraction | None = None,
    of: Cost = "macs",
    align: int = 8,
    method: Method | None = None,
    kernel_sizes: Sequence[IntOrTuple] | Literal["auto"] | None = "auto",
    exclude: Sequence[str] = (),
    dimensions: Sequence[int] = (1, 2, 3),
    batch_size: int = 50,
    positions: int | None = None,
    limit: int = LIMIT,
    progress: bool = True,
) -> tuple[nn.Module, ProjectionReport]:
    """A BSConv network that computes about what the trained dense ``model`` computes.

    No labels and no gradient steps are needed. ``model`` stays as it was; the new one is in eval
    mode.

    Args:
        images: unlabelled, a few hundred of what the model will see: floats (B, C, H, W), (B, C, T)
            or any (B, ...), or a DataLoader or other iterable of batches, of which the first
            ``limit`` images are taken. Of a batch that is a tuple or list, the first entry counts;
            if that is a tuple or a dict, these are the arguments of a model with several inputs.
            Without images only the weights are projected. With a ``budget``, the
            :func:`budget_curve` of this model may stand for the images and options that it had.
        kind: "u" (the default) for BSConv-U; "s" for BSConv-S, and ``p``, the share of input
            channels that it keeps; "cp" for BSConv-CP, in place of Conv2d alone, with as many
            blueprints as the parameters of BSConv-U pay for.
        budget: in place of ``kind``: each layer becomes U, S or CP of its own rank, or stays dense,
            with the least predicted damage to the answer for that share of the cost.
        of: what the budget counts: "macs" of convolutions and matrix products, as torch's
            FlopCounterMode counts them; "parameters"; or "time", measured in turns in the engine of
            :func:`optimize_for_inference` that is the fastest for the network.
        align: ranks are multiples of it, because engines compute channels in blocks.
        method: "weights": the closest kernels (:meth:`BSConvU.from_conv2d`). "batch_norm": then all
            BatchNorm statistics are estimated again (:func:`reestimate_batch_norm`). "outputs", the
            default where there are images: layer by layer, the kernels with the closest outputs on
            what the new network feeds them, behind shortcuts and ReLUs, as far as errors there move
            the dense network's answer; in the end, the classifier is fitted, too.
        kernel_sizes, exclude, dimensions: which layers, as for :class:`BSConvU_Replacer`; "auto":
            those of 3x3 and 5x5, with a budget those of all sizes.
        batch_size: images that run through the model at once where that is possible. The fit runs
            all of them at once: memory for about four times the largest maps of all images.
        positions: how many places of each image are looked at in each layer; by default as many as
            make 40,000 in all images, and 64 at least.
        progress: whether a bar shows how far it is, if tqdm is installed.

    Raises ValueError for arguments out of range or that do not go together, for a budget out of
    reach, for images that ``model`` does not take or that make it overflow, for a model in which a
    budget can change nothing, and for one whose copy goes on using its layers.

    >>> model, images = nn.Conv2d(16, 32, 3), torch.rand(9, 16, 8, 8)
    >>> small, report = project_pretrained(model, images, budget=0.5)
    >>> report.share <= 0.5
    True
    """
    if budget is not None:
        if kind is not None:
            raise ValueError(f"budget needs kind=None, got budget={budget!r} and kind={kind!r}")
        if p != 0.25:
            raise ValueError(f"p needs kind='s', got p={p!r} with budget={budget!r}")
        if method not in (None, "outputs"):
            raise ValueError(f"budget needs method='outputs', got method={method!r}")
        budget = _checked_budget(budget)
        if images is None:
            raise ValueError(f"budget={budget!r} needs images, got images=None")
        options: dict[str, Any] = {
            "of": of, "align": align, "kernel_sizes": kernel_sizes, "exclude": exclude,
            "dimensions": dimensions, "batch_size": batch_size, "positions": positions,
            "limit": limit,
        }  # fmt: skip
        if not isinstance(images, BudgetCurve):
            images = budget_curve(model, images, progress=progress, **options)
        return _within(budget, images, model, options, progress)
    if isinstance(images, BudgetCurve):
        raise ValueError("a budget_curve for images needs a budget, got budget=None")
    check_positive(align=align, batch_size=batch_size, positions=positions, limit=limit)
    kind, method = kind or "u", method or ("weights" if images is None else "outputs")
    _check_word("of", of, Cost)
    if of != "macs":
        raise ValueError(f"of needs a budget, got of={of!r} with budget=None")
    _check_word("kind", kind, Kind)
    _check_word("method", method, Method)
    if images is None and method != "weights":
        raise ValueError(f"method={method!r} needs images, got images=None")
    study = Study(*_read(model, images, limit), Sampler(batch_size, positions), progress)
    sizes = _sizes(kernel_sizes, auto=USUAL)
    chosen: dict[str, Any] = {"init": "project", "exclude": exclude, "dimensions": dimensions}
    if kind == "s":
        replacer: Replacer = BSConvS_Replacer(sizes, p, **chosen)
    else:
        chosen["dimensions"] = (2,) if kind == "cp" else dimensions
        replacer = BSConvU_Replacer(sizes, **chosen)
    names = [layer.names for layer in replacer.plan(study.model).replaced]
    student = copy.deepcopy(study.model)
    if kind == "cp":
        shared = tied(study.model)
        names = [own for own in names if len(own) == 1 and own[0] not in shared]
        if not names:
            raise ValueError("kind='cp' needs a Conv2d that BSConv-CP can replace, got none")
        convs = {name: study.model.get_submodule(name) for (name,) in names}
        student = install(student, {n: _shared(conv, align) for n, conv in convs.items()}).eval()
    else:
        student = replacer.apply(student).eval()
    found = {"weights_kept": {own[0]: _weights_kept(study.model, student, own[0]) for own in names}}
    if method == "outputs":
        study.look(own[0] for own in names if len(own) == 1)
        found["output_error"] = study.fit(student)
    elif method == "batch_norm":
        set_statistics(student, study.inputs, batch_size)
    return student, _report(study, student, names, method, found)


@torch.inference_mode(False)
def budget_curve(
    model: nn.Module,
    images: Images,
    budgets: Iterable[float | Fraction] = BUDGETS,
    *,
    of: Cost = "macs",
    align: int = 8,
    kernel_sizes: Sequence[IntOrTuple] | Literal["auto"] | None = "auto",
    exclude: Sequence[str] = (),
    dimensions: Sequence[int] = (1, 2, 3),
    batch_size: int = 50,
    positions: int | None = None,
    limit: int = LIMIT,
    progress: bool = True,
) -> BudgetCurve:
    """What ``project_pretrained(model, images, budget=...)`` is predicted to lose, for each budget.

    The network is looked at once, and nothing is fitted in it. Budgets that can't be reached are
    left out. The arguments, and what is raised for them, are those of :func:`project_pretrained`.

    >>> len(budget_curve(nn.Conv2d(16, 32, 3), torch.rand(9, 16, 8, 8), [0.3, 0.5]).points)
    2
    """
    shares = [_checked_budget(budget) for budget in budgets]
    check_positive(align=align, batch_size=batch_size, positions=positions, limit=limit)
    _check_word("of", of, Cost)
    study = Study(*_read(model, images, limit), Sampler(batch_size, positions), progress)
    # BSConv-S of the fewest channels is smaller wherever any form is
    sizes = _sizes(kernel_sizes, auto=None)
    plan = BSConvS_Replacer(sizes, p=0, exclude=exclude, dimensions=dimensions).plan(study.model)
    names = [layer.name for layer in plan.replaced if len(layer.names) == 1]
    if not names:
        raise ValueError("model needs a convolution that BSConv can replace, got none")
    study.look(names, lambda layer: candidates(layer, align, of))
    options = {"align": align, "kernel_sizes": kernel_sizes, "exclude": exclude}
    options |= {"dimensions": dimensions, "batch_size": batch_size, "positions": positions}
    seen = budget_of(model, study, of, {**options, "of": of, "limit": limit})
    chosen = [(budget, seen.choose(budget)) for budget in shares]
    points = [seen.point(budget, forms) for budget, forms in chosen if forms]
    return BudgetCurve(tuple(points), of, seen)


def _within(
    budget: float, curve: BudgetCurve, model: nn.Module, options: dict[str, Any], progress: bool
) -> tuple[nn.Module, ProjectionReport]:
    seen = curve._seen
    if not isinstance(seen, Budget) or not seen.is_of(model):
        raise ValueError("images needs to be images or the budget_curve of this model, got another")
    for name, value in options.items():
        usual, was = signature(budget_curve).parameters[name].default, seen.options[name]
        # as lists or tuples
        shown, *fine = (str(one).strip("[(,)]") for one in (value, usual, was))
        if shown not in fine:
            rule = f"needs to be {was!r}, as in the budget_curve"
            raise ValueError(f"{name} {rule}, got {name}={value!r}")
    study, (chosen, share) = seen.study, seen.settle(budget)
    study.progress = progress
    changed = {name: form for name, form in chosen.items() if form != DENSE}
    new = {name: form.layer(study.layers[name].conv) for name, form in changed.items()}
    student = install(copy.deepcopy(study.model), new).eval()
    damages = {name: study.layers[name].damages[form] for name, form in chosen.items()}
    found = {"damage": damages, "output_error": study.fit(student)}
    return student, _report(
        study, student, [(name,) for name in chosen], "outputs", found,
        of=seen.of, budget=budget, share=share, curve=replace(curve, _seen=None),
        kept=tuple(name for name in study.names if name not in study.layers),
    )  # fmt: skip


def _read(model: nn.Module, images: Images | None, limit: int) -> tuple[nn.Module, Inputs]:
    """A copy of the network, and the images."""
    check_module(model)
    teacher = independent_copy(unwrapped(model)).eval()
    with apart_from(model):
        return teacher, Inputs() if images is None else read_inputs(teacher, images, limit)


def _shared(conv: Any, align: int) -> nn.Module:
    """BSConv-CP as large as BSConv-U or a bit smaller, but of ``align`` blueprints if they fit."""
    as_u, dense = (form.macs(conv) // Form("cp", 1).macs(conv) for form in (Form("u"), DENSE))
    return BSConvCP.from_conv(conv, blueprints=max(as_u // align * align, min(align, dense), 1))


def _report(
    study: Study, student: nn.Module, names: Names, method: Method, found: Found, **costs: Any
) -> ProjectionReport:
    layers, plan = [], dict[str, str]()
    for own in names:
        old, new = (model.get_submodule(own[0]) for model in (study.model, student))
        form, layer = Form.of(new), study.layers.get(own[0])
        counts: list[Any] = [parameter_count(old), parameter_count(new)]
        counts += [layer.cost(one, "macs") for one in (DENSE, form)] if layer else [None, None]
        more: dict[str, Any] = {field: values.get(own[0]) for field, values in found.items()}
        layers.append(LayerProjection(own[0], form.kind, form.rank or None, *counts, **more))
        plan |= dict.fromkeys(own, str(form)) if form != DENSE else {}
    agreement = study.agreement(student)
    return ProjectionReport(tuple(layers), method, len(study.inputs), agreement, plan, **costs)


def _weights_kept(teacher: nn.Module, student: nn.Module, name: str) -> float:
    old, new = cast(Any, teacher.get_submodule(name)), cast(Any, student.get_submodule(name))
    kernel = old.weight.detach().double()
    error = (new.to_conv().weight.detach() - kernel).square().sum()
    energy = kernel.square().sum()
    return float(1 - error / energy) if energy > 0 else 1.0


def _sizes(given: Sizes | Literal["auto"], auto: Sizes) -> Sizes:
    return auto if isinstance(given, str) and given == "auto" else given


def _checked_budget(budget: Any) -> float:
    is_number = isinstance(budget, Real) and not isinstance(budget, bool)
    if not is_number or not 0 < budget <= 1:
        raise ValueError(f"budget needs 0 < budget <= 1, a share of the cost, got {budget!r}")
    return float(budget)


def _check_word(argument: str, word: str, known: Any) -> None:
    if word not in get_args(known):
        names = ", ".join(map(repr, get_args(known)))
        raise ValueError(f"{argument} needs to be one of {names}, got {argument}={word!r}")
