"""Turn a pretrained dense network into a BSConv network that keeps what it can.

Three ways, each better than the one before: the closest *weights*; then BatchNorm's statistics
estimated again on unlabelled images; and, layer by layer, the weights with the closest *outputs*.
The layers all have one form, or each has its own, so that the network keeps to a budget.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from numbers import Real
from typing import Any, get_args

import torch
from torch import nn

from .._tools.convs import IntOrTuple
from ._inputs import LIMIT, Images
from ._options import Cost, Kind, Method, Options, Prepare, one_of
from ._projections import Seen, look_at, project_to_kind, project_within
from ._report import BudgetCurve, BudgetPoint, ProjectionReport

METHODS = get_args(Method)
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
    prepare: Prepare | None = None,
    method: Method | None = None,
    kernel_sizes: Sequence[IntOrTuple] | None = ((3, 3), (5, 5)),
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
        images: unlabelled, as the model takes them, a few hundred of what it will see: floats
            (B, C, H, W), (B, C, T) or any (B, ...), or a DataLoader or other iterable of batches,
            of which the first ``limit`` images are taken. Of a batch that is a tuple or list, the
            first entry counts; if that is a tuple or a dict, these are the arguments of a model
            with several inputs. Without images only the weights are projected. With a ``budget``,
            the :func:`budget_curve` of this model may stand for its images: that has looked at them
            already, with its own options.
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
            closest outputs on what the new network feeds them. Where an output is added to a
            shortcut, the *sum* is fitted; where a ReLU follows, what it removes is no error. Errors
            count as far as they move the dense network's answer, by its derivatives. In the end,
            a Linear or 1x1 convolution that gives the answer is fitted to the dense network's.
        kernel_sizes, exclude, dimensions: which layers, as for :class:`BSConvU_Replacer`. BSConv-CP
            takes the place of Conv2d alone.
        batch_size: images that run through the model at once where that is possible. The fit runs
            all of them at once: memory for about four times the largest maps of all images.
        positions: how many places of each image are looked at in each layer; by default as many as
            make 40,000 in all images, and 64 at least.
        progress: whether a bar shows how far it is, if tqdm is installed.

    Returns the new model and a :class:`ProjectionReport`.

    Raises ValueError for arguments out of range or that do not go together, for a budget below what
    the model can come down to, for images that are not finite or do not have four dimensions, or
    that make ``model`` overflow, for a model in which a budget can change nothing, and for one
    whose copy goes on using its layers.
    """
    options = Options(
        of, align, prepare, kernel_sizes, exclude, dimensions, batch_size, positions, limit,
        progress,
    )  # fmt: skip
    if budget is None and not isinstance(images, BudgetCurve):
        kind, method = one_of("kind", kind or "u", get_args(Kind)), _checked_method(method, images)
        return project_to_kind(model, images, kind, p, method, options)
    if budget is None:
        raise ValueError("a budget_curve for images needs a budget, got budget=None")
    if kind is not None:
        raise ValueError(f"budget needs kind=None, got budget={budget!r} and kind={kind!r}")
    if isinstance(images, BudgetCurve) and of not in ("macs", images.of):
        raise ValueError(f"of needs to be {images.of!r}, as in the budget_curve, got of={of!r}")
    if method not in (None, "outputs"):
        raise ValueError(f"budget needs method='outputs', got method={method!r}")
    budget = _checked_budget(budget)
    if images is None:
        raise ValueError(f"budget={budget!r} needs images, got images=None")
    seen = images._seen if isinstance(images, BudgetCurve) else look_at(model, images, options)
    if not isinstance(seen, Seen) or not seen.is_of(model):
        raise ValueError("images needs to be images or the budget_curve of this model, got another")
    return project_within(seen, budget)


@torch.inference_mode(False)
def budget_curve(
    model: nn.Module,
    images: Images,
    budgets: Iterable[float | Fraction] = BUDGETS,
    *,
    of: Cost = "macs",
    align: int = 8,
    prepare: Prepare | None = None,
    kernel_sizes: Sequence[IntOrTuple] | None = ((3, 3), (5, 5)),
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
    """
    checked = [_checked_budget(budget) for budget in budgets]
    options = Options(
        of, align, prepare, kernel_sizes, exclude, dimensions, batch_size, positions, limit,
        progress,
    )  # fmt: skip
    seen = look_at(model, images, options)
    points = []
    for budget in checked:
        if chosen := seen.budget.within(budget):
            damage = sum(option.damage for option in chosen.values())
            forms = {name: str(option.form) for name, option in chosen.items()}
            points.append(BudgetPoint(budget, seen.budget.share(chosen), damage, forms))
    return BudgetCurve(tuple(points), of, seen)


def _checked_budget(budget: Any) -> float:
    is_number = isinstance(budget, Real) and not isinstance(budget, bool)
    if not is_number or not 0 < budget <= 1:
        raise ValueError(f"budget needs 0 < budget <= 1, a share of the cost, got {budget!r}")
    return float(budget)


def _checked_method(method: Method | None, images: object) -> Method:
    if method is None:
        return "weights" if images is None else "outputs"
    if images is None and method in ("batch_norm", "outputs"):
        raise ValueError(f"method={method!r} needs images, got images=None")
    return one_of("method", method, METHODS)
