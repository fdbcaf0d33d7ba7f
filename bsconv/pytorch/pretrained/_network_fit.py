"""Fits the layers of a network in turn, so that it computes what a dense network computes.

Each layer sees what the new network feeds it. Its target is what the dense network has where the
output arrives, even behind a shortcut, and errors count as far as they reach the answer. The new
network runs once, over all images: at each layer the pass waits until that layer is fitted, and
goes on with what the fitted layer computes.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ._fit import Fit, balanced, dense_kernel
from ._forms import Form, has_bias, put
from ._inputs import Inputs
from ._operations import Operation
from ._samples import RIDGE, Patches, Samples, check_finite
from ._study import Study, run_through, work_of

RECTIFIED_ROUNDS = 6


def fit_network(study: Study, student: nn.Module, progress: bool) -> dict[str, float]:
    """Fits all layers and the classifier; the errors of the layers behind what follows them."""
    errors: dict[str, float] = {}
    sampler = study.sampler
    work = sum(work_of(layer.conv) for layer in study.layers.values())

    def arrive(name: str, call: Operation, norm: dict[str, Any], output: Tensor) -> None:
        layer = study.layers[name]
        patches = sampler.patches(layer.conv, call.args[0])
        activation = layer.consumer.activation
        rows = layer.wanted.to(patches), sampler.rows(layer.conv, output).to(patches)
        samples = Samples(patches, *rows, activation)
        check_finite(f"'{name}'", *samples[:3])
        errors[name] = fit_layer(study, name, student.get_submodule(name), samples, norm)
        advance(work_of(layer.conv))

    with progress_bar(work, progress) as advance:
        run_through(student, study, arrive, blank=True)
    return errors


@torch.no_grad()
def fit_layer(
    study: Study, name: str, new: nn.Module, samples: Samples, norm: dict[str, Any]
) -> float:
    """Puts the best weights into the layer; returns its relative squared error."""
    layer, form = study.layers[name], Form.of(new)
    kernel, activation = layer.kernel, samples.activation
    # the fewer images, the less the classifier changes
    ridge = layer.kernel[0].numel() / len(study.inputs) if name == study.head else RIDGE
    patches = Patches(samples.patches, centered=bool(norm) or has_bias(new), ridge=ridge)
    fit = Fit(patches.steady, layer.metric, kernel.shape[1])
    parts, target = {}, samples.wanted
    for turn in range(1 if activation is None else 1 + RECTIFIED_ROUNDS):
        cross, mean = patches.cross(target - samples.added, kernel)
        if turn == 0 or form.kind == "dense":
            parts = fit.find(form, patches.solve(cross).view_as(kernel), cross)
        else:
            parts = fit.improve(form.kind, parts, cross)
        dense = dense_kernel(form.kind, parts)
        shift = mean - dense.flatten(1) @ patches.mean
        target = samples.target(dense, shift)
    put(balanced(form.kind, parts), torch.zeros_like(shift) if norm else shift, new)
    if norm:
        _set_norm(norm, dense.flatten(1), shift, patches)
    return samples.error(dense, shift)


def _set_norm(norm: dict[str, Any], rows: Tensor, shift: Tensor, patches: Patches) -> None:
    """Statistics of what the layer computes, and a weight and bias that only add the constant."""
    mean, variance = rows @ patches.mean, ((rows @ patches.covariance) * rows).sum(1)
    # the weight makes up for any variance that its dtype can hold
    variance = variance.clamp_max(torch.finfo(norm["weight"].dtype).max)
    norm["running_mean"].copy_(mean)
    norm["running_var"].copy_(variance)
    norm["weight"].copy_((variance + norm["eps"]).sqrt())
    norm["bias"].copy_(shift + mean)


@torch.no_grad()
def agreement(
    teacher: nn.Module, student: nn.Module, inputs: Inputs, batch_size: int
) -> float | None:
    """The share of images whose largest output is the same; None where there are no logits."""
    same = 0
    for batch in inputs.split(batch_size):
        expected, found = batch.run(teacher), batch.run(student)
        if (
            not isinstance(expected, Tensor)
            or expected.dim() != 2
            or not expected.is_floating_point()
        ):
            return None
        check_finite("the outputs", expected)
        same += int((expected.argmax(1) == found.argmax(1))[found.isfinite().all(1)].sum())
    return same / len(inputs)


@contextmanager
def progress_bar(work: float, show: bool) -> Iterator[Callable[[float], object]]:
    """Yields a function to call with each part of ``work`` that is done.

    The time left is the time taken in proportion. Nothing is shown where tqdm is not installed.
    """
    try:
        tqdm = importlib.import_module("tqdm") if show else None
    except ImportError:
        tqdm = None
    if tqdm is None:
        yield lambda part: None
        return
    form = "{l_bar}{bar}| {elapsed}, {remaining} left"
    with tqdm.tqdm(total=work, desc="projecting", bar_format=form, smoothing=0) as bar:
        yield bar.update
