"""Turn a pretrained dense network into a BSConv network that keeps what it can.

Three ways, each better than the one before: the closest *weights*; then BatchNorm's statistics
estimated again on unlabelled images; and, layer by layer, the weights with the closest *outputs*.
The layers all have one form, or each has its own, so that the network keeps to a budget.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import TypeVar, get_args, overload

from torch import nn

from .._tools.convs import IntOrPair
from ._inputs import LIMIT, Images, check_positive, read_inputs
from ._one_kind import Kind, project_to_kind
from ._report import BudgetCurve, BudgetReport, Cost, Method, ProjectionReport
from ._samples import Sampler
from ._timing import Prepare
from ._within_budget import Choice, curve_of, project_within

METHODS = get_args(Method)
Word = TypeVar("Word", bound=str)
BUDGETS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@overload
def project_pretrained(
    model: nn.Module, images: Images, *, budget: float, of: Cost = ..., align: int = ...,
    prepare: Prepare | None = ..., kernel_sizes: Sequence[IntOrPair] | None = ...,
    exclude: Sequence[str] = ..., batch_size: int = ..., positions: int = ..., limit: int = ...,
    progress: bool = ...,
) -> tuple[nn.Module, BudgetReport]: ...  # fmt: skip


@overload
def project_pretrained(
    model: nn.Module, images: Images | None = ..., kind: Kind | None = ...,
    p: float | Fraction = ..., *, method: Method | None = ..., align: int = ...,
    kernel_sizes: Sequence[IntOrPair] | None = ..., exclude: Sequence[str] = ...,
    batch_size: int = ..., positions: int = ..., limit: int = ..., progress: bool = ...,
) -> tuple[nn.Module, ProjectionReport]: ...  # fmt: skip


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
) -> tuple[nn.Module, ProjectionReport | BudgetReport]:
    """A BSConv network that computes about what the trained dense ``model`` computes.

    No labels and no gradient steps are needed. ``model`` stays as it was; the new one is in eval
    mode.

    Args:
        images: unlabelled, as the model takes them, a few hundred of what it will see: floats
            (B, C, H, W), or a DataLoader or other iterable of batches, of which the first
            ``limit`` images are taken. Of a batch that is a tuple or list, the first entry counts;
            if that is a tuple or a dict, these are the arguments of a model with several inputs.
            Without images only the weights are projected.
        kind: "u" (the default) for BSConv-U; "s" for BSConv-S, and ``p``, the share of input
            channels that it keeps; "cp" for BSConv-CP, with as many blueprints in each layer as
            the parameters of BSConv-U pay for.
        budget: in place of ``kind``: each layer becomes U, S or CP of its own rank, or stays dense,
            so that the network costs at most that share of what it cost, with the least predicted
            damage to its answer.
        of: what the budget counts. "macs": multiply-accumulates of convolutions and matrix
            products, as torch's FlopCounterMode counts them. "parameters". "time": seconds, layers
            and ranks measured in turns on this machine; ``prepare(module, *inputs)`` then returns
            what runs a module once in the engine that will run it (by default: as it is).
        align: ranks are multiples of it, because engines compute channels in blocks.
        method: "weights": the closest kernels (:meth:`BSConvU.from_conv2d`). "batch_norm": then all
            BatchNorm statistics are estimated again (:func:`reestimate_batch_norm`). "outputs", the
            default where there are images: layer by layer from the input on, the kernels with the
            closest outputs, by alternating least squares. Each layer sees what the new network
            feeds it, and where its output is added to a shortcut, the *sum* is fitted, so that it
            makes up for errors before it; where a ReLU follows, what the ReLU removes is no error.
            Errors count as far as they move the dense network's answer, by its derivatives. In the
            end, where a Linear or a 1x1 convolution gives the answer, it is fitted to the dense
            network's.
        kernel_sizes, exclude: which layers, as for :class:`BSConvU_Replacer`.
        batch_size: images that run through the model at once where that is possible. The fit runs
            all of them at once: memory for about four times the largest maps of all images.
        positions: of each image and layer, so many places are looked at.
        progress: whether a bar shows how far it is, if tqdm is installed.

    Returns the new model and a :class:`ProjectionReport`, or a :class:`BudgetReport`.

    Raises ValueError for another ``kind``, ``of`` or ``method``, for a method or budget that needs
    images without any, for a budget outside (0, 1], below what the model can come down to, or
    together with a kind, for images that are not finite or do not have four dimensions, or that
    make ``model`` overflow, for sizes below 1, for a model of which a budget can change nothing,
    and for one whose copy goes on using its layers.
    """
    check_positive(batch_size=batch_size, positions=positions, limit=limit, align=align)
    sampler = Sampler(batch_size, positions)
    if budget is None:
        kind, method = _checked_kind(kind), _checked_method(method, images)
        inputs = None if images is None else read_inputs(images, limit)
        return project_to_kind(
            model, inputs, kind, p, align, method, kernel_sizes, exclude, sampler, progress
        )
    if kind is not None:
        raise ValueError(f"budget needs kind=None, got budget={budget!r} and kind={kind!r}")
    if method not in (None, "outputs"):
        raise ValueError(f"budget needs method='outputs', got method={method!r}")
    _check_budget(budget)
    choice = Choice(_checked_cost(of), align, prepare, kernel_sizes, exclude, sampler, progress)
    if images is None:
        raise ValueError(f"budget={budget!r} needs images, got images=None")
    return project_within(model, read_inputs(images, limit), budget, choice)


def budget_curve(
    model: nn.Module,
    images: Images,
    budgets: Sequence[float] = BUDGETS,
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
    """What ``project_pretrained(model, images, budget=...)`` is predicted to lose, for each budget.

    The network is looked at once, and nothing is fitted in it. Budgets that can't be reached are
    left out. The arguments, and what is raised for them, are those of :func:`project_pretrained`.
    """
    check_positive(batch_size=batch_size, positions=positions, limit=limit, align=align)
    for budget in budgets:
        _check_budget(budget)
    sampler = Sampler(batch_size, positions)
    choice = Choice(_checked_cost(of), align, prepare, kernel_sizes, exclude, sampler, progress)
    return curve_of(model, read_inputs(images, limit), budgets, choice)


def _check_budget(budget: float) -> None:
    if not 0 < budget <= 1:
        raise ValueError(f"budget needs 0 < budget <= 1, a share of the cost, got {budget!r}")


def _checked_cost(of: Cost) -> Cost:
    return _one_of("of", of, get_args(Cost))


def _checked_kind(kind: Kind | None) -> Kind:
    return "u" if kind is None else _one_of("kind", kind, get_args(Kind))


def _checked_method(method: Method | None, images: Images | None) -> Method:
    if method is None:
        return "weights" if images is None else "outputs"
    if images is None and method != "weights" and method in METHODS:
        raise ValueError(f"method={method!r} needs images, got images=None")
    return _one_of("method", method, METHODS)


def _one_of(argument: str, value: Word, known: tuple[Word, ...]) -> Word:
    if value not in known:
        names = ", ".join(map(repr, known))
        raise ValueError(f"{argument} needs to be one of {names}, got {argument}={value!r}")
    return value
