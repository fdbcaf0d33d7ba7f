"""Turn a pretrained dense network into a BSConv network that keeps what it can.

Three ways, each better than the one before: the closest *weights*; then BatchNorm's statistics
estimated anew on unlabelled images; and, layer by layer, the weights with the closest *outputs*.
"""

import copy
import importlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from .._tools.convs import IntOrPair
from .._tools.numerics import check_finite
from ..modules import BSConvS, BSConvU
from ..replacers import BSConvS_Replacer, BSConvU_Replacer
from ._classifier_fit import find_head, refit_head
from ._layer_fit import LayerFit, dense, factors_of
from ._report import LayerProjection, Method, ProjectionReport
from ._tracing import find_landings

METHODS = ("weights", "batch_norm", "outputs")
Item = TypeVar("Item")


def project_pretrained(
    model: nn.Module,
    images: Tensor | None = None,
    kind: Literal["u", "s"] = "u",
    p: float | Fraction = 0.25,
    *,
    method: Method | None = None,
    kernel_sizes: Sequence[IntOrPair] | None = ((3, 3), (5, 5)),
    exclude: Sequence[str] = (),
    batch_size: int = 50,
    positions: int = 64,
    progress: bool = True,
) -> tuple[nn.Module, ProjectionReport]:
    """A BSConv network that computes about what the trained dense ``model`` computes.

    No labels and no gradient steps are needed. ``model`` stays as it was; the new one is in eval
    mode.

    Args:
        images: (B, C, H, W), unlabelled, as the model takes them: a few hundred of what it will
            see. Without them only the weights are projected.
        kind: "u" for BSConv-U, "s" for BSConv-S, and ``p``, the share of input channels that
            BSConv-S keeps.
        method: "weights": the closest kernels (:meth:`BSConvU.from_conv2d`). "batch_norm": then all
            BatchNorm statistics are estimated anew (:func:`reestimate_batch_norm`). "outputs", the
            default where there are images: layer by layer from the input on, the kernels with the
            closest outputs, by alternating least squares. Each layer sees what the new network
            feeds it, and where its output is added to a shortcut, the *sum* is fitted, so that it
            makes up for errors before it; where a ReLU follows, what the ReLU removes is no error.
            Errors count as far as they move the dense network's answer, by its derivatives. In the
            end, where a Linear or a 1x1 convolution gives the answer, it is fitted to the dense
            network's.
        kernel_sizes, exclude: which layers, as for :class:`BSConvU_Replacer`.
        batch_size: images that run through the model at once.
        positions: of each image and layer, so many places are looked at.
        progress: whether a bar shows how far it is, if tqdm is installed.

    Returns the new model and a :class:`ProjectionReport`.

    Raises ValueError for another ``kind`` or ``method``, for a method that needs images without
    any, for images that are not finite or have not four dimensions, for such that make ``model``
    overflow, and for sizes below 1.
    """
    method = _checked_method(method, images)
    _check_positive(batch_size=batch_size, positions=positions)
    teacher = copy.deepcopy(model).eval()
    replacer = _replacer(kind, p, kernel_sizes, exclude)
    with torch.random.fork_rng(devices=[]):  # new layers draw weights, which are then replaced
        student = replacer.apply(copy.deepcopy(teacher)).eval()
    assert replacer.report is not None
    names = [layer.names for layer in replacer.report.replaced]
    kept = {
        name: _weights_kept(teacher.get_submodule(name), student.get_submodule(name))
        for name, *_ in names
    }
    errors: dict[str, float] = {}
    if images is not None and method == "outputs":
        landings = find_landings(teacher, images[:2], [own[0] for own in names if len(own) == 1])
        sizes = {"batch_size": batch_size, "positions": positions}
        fit = LayerFit(teacher, student, images, landings, **sizes)
        for name in _bar(list(landings), progress):
            errors[name] = fit.layer(name)
        head = find_head(teacher, images[:2])
        if head is not None:
            refit_head(teacher, student, head, images, batch_size)
    elif images is not None and method == "batch_norm":
        reestimate_batch_norm(student, images, batch_size=batch_size)
    layers = tuple(
        LayerProjection(
            name=layer.name,
            parameters_before=layer.parameters_before,
            parameters_after=layer.parameters_after,
            weights_kept=kept[layer.name],
            output_error=errors.get(layer.name),
        )
        for layer in replacer.report.replaced
    )
    agreement = None if images is None else _agreement(teacher, student, images, batch_size)
    return student, ProjectionReport(
        layers, method, 0 if images is None else len(images), agreement
    )


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, images: Tensor, *, batch_size: int = 50) -> nn.Module:
    """Sets the running statistics of every BatchNorm to those of ``images``, and returns ``model``.

    Means over all batches; each of them counts the same, so the last, smaller one is left out if
    there are others. Weights, modes and momenta stay as they are.

    Raises ValueError for images that are not finite or have not four dimensions, for such whose
    statistics are too large for their dtype, which leaves the statistics as they were, and for a
    ``batch_size`` below 1.
    """
    _check_images(images)
    _check_positive(batch_size=batch_size)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    former = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative
        norm.train()
    try:
        batches = torch.split(images, batch_size)
        whole = [batch for batch in batches if len(batch) == batch_size] or batches
        for batch in whole:
            model(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    if not all(buffer.isfinite().all() for norm in norms for buffer in norm.buffers()):
        for norm, values in zip(norms, former, strict=True):
            norm.load_state_dict(values, strict=False)
        raise ValueError(
            "images needs numbers whose variance is a number of its dtype at each BatchNorm, got "
            "NaN or infinity as running statistics"
        )
    return model


@torch.no_grad()
def _weights_kept(conv: nn.Module, layer: nn.Module) -> float:
    kernel = cast(nn.Conv2d, conv).weight.double()
    error = (dense(factors_of(cast(BSConvU | BSConvS, layer))) - kernel).square().sum()
    energy = kernel.square().sum()
    return float(1 - error / energy) if energy > 0 else 1.0


@torch.no_grad()
def _agreement(
    teacher: nn.Module, student: nn.Module, images: Tensor, batch_size: int
) -> float | None:
    same = 0
    for batch in torch.split(images, batch_size):
        expected, found = teacher(batch), student(batch)
        if not isinstance(expected, Tensor) or expected.dim() != 2:
            return None
        check_finite("the outputs", expected)
        same += int((expected.argmax(1) == found.argmax(1))[found.isfinite().all(1)].sum())
    return same / len(images)


def _replacer(
    kind: str,
    p: float | Fraction,
    kernel_sizes: Sequence[IntOrPair] | None,
    exclude: Sequence[str],
) -> BSConvU_Replacer | BSConvS_Replacer:
    options: dict[str, Any] = {"init": "project", "exclude": exclude}
    if kind == "u":
        return BSConvU_Replacer(kernel_sizes, **options)
    if kind == "s":
        return BSConvS_Replacer(kernel_sizes, p, **options)
    raise ValueError(f"kind needs to be 'u' or 's', got kind={kind!r}")


def _checked_method(method: Method | None, images: Tensor | None) -> Method:
    if method is not None and method not in METHODS:
        names = ", ".join(map(repr, METHODS))
        raise ValueError(f"method needs to be one of {names}, got method={method!r}")
    if images is not None:
        _check_images(images)
    elif method in ("batch_norm", "outputs"):
        raise ValueError(f"method={method!r} needs images, got images=None")
    return method or ("weights" if images is None else "outputs")


def _check_positive(**sizes: int) -> None:
    for name, number in sizes.items():
        if number < 1:
            raise ValueError(f"{name} needs to be at least 1, got {name}={number}")


def _check_images(images: Tensor) -> None:
    if images.dim() != 4 or not len(images) or not images.is_floating_point():
        raise ValueError(
            "images needs floats of shape (B, C, H, W), at least one image, got "
            f"{images.dtype} of shape {tuple(images.shape)}"
        )
    if not images.isfinite().all():
        raise ValueError("images needs finite numbers, got NaN or infinity among them")


def _bar(items: Sequence[Item], show: bool) -> Iterator[Item]:
    """The items, with a progress bar where one is wanted and tqdm is installed."""
    if not show:
        return iter(items)
    try:
        tqdm = importlib.import_module("tqdm")
    except ImportError:
        return iter(items)
    return iter(tqdm.tqdm(items, desc="projecting", unit="layer"))
