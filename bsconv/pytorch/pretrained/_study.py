"""What a dense network is, computes and finds important: all that others are fitted to."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._tools.convs import CONVS, Conv, with_ones
from .._tools.model_tree import watching
from .._tools.numerics import without_autocast
from ._consumers import Consumer, find_consumers
from ._fit import TABLE_STEPS, Fit, dense_kernel
from ._forms import DENSE, Form, Geometry
from ._inputs import Inputs
from ._operations import Operation, visiting
from ._samples import Patches, Sampler, check_finite
from ._sensitivity import Sensitivity, sensitivities

TRACED = 2  # images that tell where outputs arrive


@dataclass
class Layer:
    """A convolution, or the classifier, that is called once, and what is known of it."""

    conv: Conv  # or a Linear, of which little is asked
    consumer: Consumer
    sensitivity: Sensitivity | None
    kernel: Tensor  # with the scale of a BatchNorm that can be set
    wanted: Tensor = field(default_factory=lambda: torch.empty(0))  # rows of what arrives
    damages: dict[Form, float] = field(default_factory=dict)  # of forms; empty for the classifier

    @property
    def metric(self) -> Tensor:
        if self.sensitivity is None:
            return torch.eye(len(self.kernel), dtype=torch.float64, device=self.kernel.device)
        return self.sensitivity.metric

    @property
    def geometry(self) -> Geometry:
        return Geometry.of(self.conv, *self.consumer.geometry)


def work_of(layer: nn.Module) -> float:
    """About how long its fit takes, in an arbitrary unit."""
    return cast(Tensor, layer.weight)[0].numel() ** 2.0


@dataclass
class Study:
    """A dense network, its layers in the order of calls, and the images that it has seen."""

    model: nn.Module
    inputs: Inputs
    sampler: Sampler
    names: tuple[str, ...]  # all convolutions that were asked for
    head: str | None  # the classifier
    layers: dict[str, Layer]


Arrive = Callable[[str, Operation, dict[str, Any], Tensor], object]


@torch.no_grad()
def run_through(model: nn.Module, study: Study, arrive: Arrive, *, blank: bool) -> None:
    """Runs ``model`` over all images of the study, and calls ``arrive`` for each layer.

    That is where its output arrives: with its name, its call, the state of its BatchNorm, and what
    arrives. If ``blank``, layers answer zero at first, so what arrives is what else is added; what
    the layer has become by then is added afterwards.
    """
    consumers: dict[Any, Consumer] = {n: layer.consumer for n, layer in study.layers.items()}
    norm_numbers = {consumer.norm for consumer in consumers.values()}
    waiting: dict[int, tuple[Any, Operation]] = {}  # by the operation at which they arrive
    norms: dict[int | None, dict[str, Any]] = {}
    group_size = study.sampler.group_size

    def visit(operation: Operation) -> Any:
        if operation.number in norm_numbers:
            norms[operation.number] = operation.norm_state()
        if consumer := consumers.get(operation.layer):
            waiting[consumer.arrival] = operation.layer, operation
        if blank and operation.number in norm_numbers:
            output = norms[operation.number]["input"]
        elif blank and consumer:
            images = operation.args[0]
            output = images.new_zeros((len(images), *consumer.geometry[1]))
        else:
            output = operation.run()
        if arrived := waiting.pop(operation.number, None):
            name, call = arrived
            norm = norms.pop(consumers[name].norm, {})
            with without_autocast(output.device.type):  # the model may have turned it on
                arrive(name, call, norm, output)
            groups = [torch.split(maps, group_size) for maps in (call.args[0], output)]
            for images, part in zip(*groups, strict=True) if blank else ():
                response = call.function(images)
                part.add_(F.batch_norm(**{**norm, "input": response}) if norm else response)
        return output

    watched = study.names if study.head is None else (*study.names, study.head)
    with visiting({name: model.get_submodule(name) for name in watched}, visit):
        study.inputs.run(model)


def study_of(
    model: nn.Module,
    inputs: Inputs,
    names: Iterable[str],
    sampler: Sampler,
    *,
    forms: Callable[[Layer], Iterable[Form]] | None = None,
    done: Callable[[Layer], object] = lambda _: None,
) -> Study:
    """Runs the network once over all images, after a few for its structure and its derivatives.

    With ``forms``, tables tell what each layer's would do; ``done`` is called after each layer.
    """
    names, head = tuple(names), find_head(model, inputs.first(TRACED))
    head = None if head in names else head
    watched: dict[str, Any] = {name: model.get_submodule(name) for name in names}
    if head is not None:
        watched[head] = model.get_submodule(head)
    consumers = find_consumers(model, inputs.first(TRACED), watched)
    numbers = {consumer.arrival for consumer in consumers.values()}
    found = sensitivities(model, inputs, watched, numbers, sampler.group_size)
    layers = {
        name: Layer(watched[name], c, found.get(c.arrival), _kernel(watched[name]))
        for name, c in consumers.items()
    }
    study = Study(model, inputs, sampler, names, head, layers)

    def arrive(name: str, call: Operation, norm: Mapping[str, Any], output: Tensor) -> None:
        layer = layers[name]
        if norm:
            scale = (norm["running_var"].double() + norm["eps"]).rsqrt() * norm["weight"].double()
            layer.kernel = layer.kernel * with_ones(scale, layer.kernel.dim())
        layer.wanted = sampler.rows(layer.conv, output)
        check_finite(f"'{name}'", layer.wanted)
        if forms and name != head:
            has_constant = layer.conv.bias is not None or bool(norm)
            patches = Patches(sampler.patches(layer.conv, call.args[0]), centered=has_constant)
            layer.damages = {DENSE: 0.0, **_damages(layer, patches, forms(layer))}
            done(layer)

    run_through(model, study, arrive, blank=False)
    return study


def find_head(model: nn.Module, inputs: Inputs) -> str | None:
    """The name of the classifier whose output, maybe reshaped, is what the model returns, or None.

    A classifier is a Linear, or a 1x1 convolution, which is a Linear at each position.
    """
    said: list[tuple[str, Tensor, Tensor]] = []

    def note(name: str, _: nn.Module, __: object, output: Tensor) -> None:
        said.append((name, output, output.flatten().clone()))  # in-place activations may follow

    heads = {name: module for name, module in model.named_modules() if _is_linear(module)}
    with watching((module, partial(note, name)) for name, module in heads.items()):
        answer = inputs.run(model)
    for name, output, before in said:
        if isinstance(answer, Tensor) and answer.data_ptr() == output.data_ptr():
            found = answer.flatten()
            if len(found) == len(before) and found.allclose(before, 0, 0, equal_nan=True):
                return name
    return None


def _is_linear(module: nn.Module) -> bool:
    if isinstance(module, Conv) and type(module) in CONVS:
        sizes = {*module.stride, *module.kernel_size, module.groups}
        return sizes == {1} and set(module.padding) == {0}
    return type(module) is nn.Linear


def _kernel(layer: nn.Module) -> Tensor:
    weight = cast(Tensor, layer.weight).detach().double()
    return weight if weight.dim() > 2 else weight[:, :, None, None]


def _damages(layer: Layer, patches: Patches, forms: Iterable[Form]) -> dict[Form, float]:
    """For each form what the answer loses if the layer alone takes it (see ``sensitivities``)."""
    kernel, metric = layer.kernel, layer.metric
    if layer.sensitivity is None:
        rows = kernel.flatten(1)
        energy = float((rows @ patches.covariance * rows).sum())
        scale = 1 / energy if energy > 0 else 0.0
    else:
        scale = layer.sensitivity.scale
    fit = Fit(patches.steady, metric, kernel.shape[1])
    cross = kernel.flatten(1) @ patches.steady
    found = {}
    for form in forms:
        parts = fit.find(form, kernel, cross, TABLE_STEPS)
        missing = (dense_kernel(form.kind, parts) - kernel).flatten(1)
        found[form] = scale * float((missing @ patches.covariance @ missing.T * metric).sum())
    return found
