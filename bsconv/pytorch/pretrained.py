"""Turn a pretrained dense network into a BSConv network that keeps what it can.

Three ways, each better than the one before: the closest *weights*; then BatchNorm's statistics
estimated anew on unlabelled images; and, layer by layer, the weights with the closest *outputs*.
"""

import copy
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._geometry import IntOrPair
from ._landings import Call, Landing, Point, capture, find_landings
from ._output_fit import Moments, constant, fit_blueprints, fit_subspace, moments
from ._tables import Table
from .decomposition import BlueprintFactors, SubspaceFactors, compose
from .modules import BSConvS, BSConvU
from .replacers import BSConvS_Replacer, BSConvU_Replacer

Method = Literal["weights", "batch_norm", "outputs"]
METHODS = ("weights", "batch_norm", "outputs")
RECTIFIED_ROUNDS = 3
Item = TypeVar("Item")


@dataclass(frozen=True)
class LayerProjection:
    """One replaced layer and what it kept of the dense one.

    ``weights_kept`` is the share of the sum of squares of the dense kernel that the closest
    blueprint kernel has, in [0, 1]. ``output_error``, where outputs were fitted, is the squared
    error of what the layer should have computed, relative to its variance.
    """

    name: str
    parameters_before: int
    parameters_after: int
    weights_kept: float
    output_error: float | None = None


@dataclass(frozen=True)
class ProjectionReport(Table):
    """What :func:`project_pretrained` did; prints as a table, in Jupyter too.

    ``agreement`` is the share of the images for which the new network's largest output is that of
    the dense network; None without images, and for models that don't return a matrix of logits.
    """

    header = ("layer", "parameters before", "after", "weights kept", "output error")

    layers: tuple[LayerProjection, ...]
    method: Method
    images: int
    agreement: float | None

    @property
    def summary(self) -> str:
        said = f"{len(self.layers)} layers projected by their {self.method.replace('_', ' ')}"
        if self.agreement is None:
            return said
        return (
            f"{said}; agrees with the dense network on {self.agreement:.1%} of {self.images} images"
        )

    def _table_rows(self) -> list[tuple[str | int, ...]]:
        return [
            (
                *(layer.name or "(root)", layer.parameters_before, layer.parameters_after),
                f"{layer.weights_kept:.1%}",
                "" if layer.output_error is None else f"{layer.output_error:.1%}",
            )
            for layer in self.layers
        ]


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
    positions: int = 256,
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
        kernel_sizes, exclude: which layers, as for :class:`BSConvU_Replacer`.
        batch_size: images that run through the model at once.
        positions: of each image and layer, so many places are looked at.
        progress: whether a bar shows how far it is, if tqdm is installed.

    Returns the new model and a :class:`ProjectionReport`.

    Raises ValueError for another ``kind`` or ``method``, for a method that needs images without
    any, for images that are not finite or have not four dimensions, and for sizes below 1.
    """
    method = _checked_method(method, images)
    for name, number in (("batch_size", batch_size), ("positions", positions)):
        if number < 1:
            raise ValueError(f"{name} needs to be at least 1, got {name}={number}")
    teacher = copy.deepcopy(model).eval()
    replacer = _replacer(kind, p, kernel_sizes, exclude)
    student = replacer.apply(copy.deepcopy(teacher)).eval()
    assert replacer.report is not None
    names = [layer.names for layer in replacer.report.replaced]
    kept = {
        name: _weights_kept(teacher.get_submodule(name), student.get_submodule(name))
        for name, *_ in names
    }
    errors: dict[str, float] = {}
    if images is not None and method == "outputs":
        fit = _OutputFit(teacher, student, images, batch_size, positions)
        landings = find_landings(teacher, images[:2], [own[0] for own in names if len(own) == 1])
        for name, landing in _bar(list(landings.items()), progress):
            errors[name] = fit.layer(name, landing)
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

    Raises ValueError for images that are not finite or have not four dimensions.
    """
    _check_images(images)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
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
    return model


class _Samples(NamedTuple):
    """Places of a layer in all images: what it sees, what is wanted, what is added behind it."""

    patches: Tensor  # (R, M*K*K)
    wanted: Tensor  # (R, N)
    added: Tensor  # (R, N)

    def total(self, kernel: Tensor, shift: Tensor) -> Tensor:
        """What arrives behind the layer, with what is added."""
        rows = kernel.flatten(1).to(self.patches)
        return self.patches @ rows.T + shift.to(self.patches) + self.added

    def rectified_target(self, kernel: Tensor, shift: Tensor) -> Tensor:
        """What is wanted; but below zero, where a ReLU removes it, what is there already."""
        there = self.total(kernel, shift).clamp_max(0)
        return self.wanted.where(self.wanted > 0, there)

    def error(self, kernel: Tensor, shift: Tensor, *, rectified: bool) -> float:
        """The squared error relative to the variance of what is wanted, behind the ReLU if any."""
        total, wanted = self.total(kernel, shift), self.wanted
        if rectified:
            total, wanted = total.relu(), wanted.relu()
        variance = float(wanted.var(dim=0, correction=0).sum())
        return float((total - wanted).square().mean(0).sum()) / variance if variance > 0 else 0.0


class _OutputFit:
    """Fits the layers of ``student`` in turn, to the outputs of ``teacher`` on ``images``."""

    def __init__(
        self, teacher: nn.Module, student: nn.Module, images: Tensor, batch_size: int, places: int
    ) -> None:
        self.teacher = teacher
        self.student = student
        self.images = images
        self.batch_size = batch_size
        self.places = places

    def layer(self, name: str, landing: Landing) -> float:
        """Puts the best factors into the layer; returns its relative squared error."""
        layer = cast(BSConvU | BSConvS, self.student.get_submodule(name))
        samples = self._samples(name, landing)
        has_constant = bool(landing.norm) or layer.dw.bias is not None
        factors, target = _factors(layer), samples.wanted
        for _ in range(1 + RECTIFIED_ROUNDS * landing.rectified):
            known = moments(samples.patches, target - samples.added, centered=has_constant)
            factors = _fit(known, factors)
            shift = constant(known, _dense(factors))
            if landing.rectified:
                target = samples.rectified_target(_dense(factors), shift)
        _put(self.student, layer, factors, shift, known, landing.norm)
        return samples.error(_dense(factors), shift, rectified=landing.rectified)

    def _samples(self, name: str, landing: Landing) -> _Samples:
        seen = Point(Call(name, 0), "input")
        output = Point(Call(landing.norm or name, 0), "output")
        arrival = Point(landing.call, "input") if landing.call else output
        conv = cast(nn.Conv2d, self.teacher.get_submodule(name))
        generator = torch.Generator().manual_seed(0)
        parts = []
        for batch in torch.split(self.images, self.batch_size):
            wanted = capture(self.teacher, batch, {arrival})[arrival]
            there = capture(self.student, batch, {seen, output, arrival})
            added = there[arrival] - there[output]
            chosen = torch.randperm(wanted[0, 0].numel(), generator=generator)[: self.places]
            patches = _patches(conv, there[seen])[:, :, chosen]
            rows = [part.flatten(2)[:, :, chosen] for part in (wanted, added)]
            parts.append([part.mT.flatten(0, 1) for part in (patches, *rows)])
        return _Samples(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _patches(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """What each output of ``conv`` sees, (B, M*Kh*Kw, positions)."""
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    padded = F.pad(images, conv._reversed_padding_repeated_twice, mode=mode)
    return F.unfold(padded, conv.kernel_size, dilation=conv.dilation, stride=conv.stride)


def _factors(layer: BSConvU | BSConvS) -> BlueprintFactors | SubspaceFactors:
    blueprints = layer.dw.weight[:, 0].detach().double()
    if isinstance(layer, BSConvU):
        return BlueprintFactors(layer.pw.weight.detach().flatten(1).double(), blueprints)
    mixing, basis = (pw.weight.detach().flatten(1).double() for pw in (layer.pw2, layer.pw1))
    return SubspaceFactors(mixing, basis, blueprints)


def _fit(
    known: Moments, start: BlueprintFactors | SubspaceFactors
) -> BlueprintFactors | SubspaceFactors:
    if isinstance(start, BlueprintFactors):
        return fit_blueprints(known, start)
    return fit_subspace(known, start)


def _dense(factors: BlueprintFactors | SubspaceFactors) -> Tensor:
    if isinstance(factors, BlueprintFactors):
        return compose(factors.weights, factors.blueprints)
    return compose(factors.mixing @ factors.basis, factors.blueprints)


@torch.no_grad()
def _put(
    student: nn.Module,
    layer: BSConvU | BSConvS,
    factors: BlueprintFactors | SubspaceFactors,
    shift: Tensor,
    known: Moments,
    norm_name: str,
) -> None:
    """The factors into the layer, the constant into the BatchNorm behind it or into its bias."""
    if isinstance(layer, BSConvU):
        layer.pw.weight.copy_(cast(BlueprintFactors, factors).weights[:, :, None, None])
    else:
        subspace = cast(SubspaceFactors, factors)
        layer.pw1.weight.copy_(subspace.basis[:, :, None, None])
        layer.pw2.weight.copy_(subspace.mixing[:, :, None, None])
    layer.dw.weight.copy_(factors.blueprints[:, None])
    if layer.dw.bias is not None:
        layer.dw.bias.copy_(torch.zeros_like(shift) if norm_name else shift)
    if norm_name:
        norm = cast(nn.BatchNorm2d, student.get_submodule(norm_name))
        rows = _dense(factors).flatten(1)
        mean, variance = rows @ known.patch_mean, ((rows @ known.patches) * rows).sum(1)
        cast(Tensor, norm.running_mean).copy_(mean)
        cast(Tensor, norm.running_var).copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(shift + mean)


@torch.no_grad()
def _weights_kept(conv: nn.Module, layer: nn.Module) -> float:
    dense = cast(nn.Conv2d, conv).weight.double()
    error = (_dense(_factors(cast(BSConvU | BSConvS, layer))) - dense).square().sum()
    energy = dense.square().sum()
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
        same += int((expected.argmax(1) == found.argmax(1)).sum())
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
