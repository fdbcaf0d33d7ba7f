"""What a dense network computes and finds important, and the fit of other networks to that.

A layer's target is what the dense network has where its output arrives, even behind a shortcut, and
errors count as far as they reach the answer. The new network runs once, over all images: at each
layer the pass waits until that layer is fitted, and goes on with what it computes then.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from math import prod
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._tools.convs import CONVS, Conv
from .._tools.model_tree import watching
from .._tools.numerics import without_autocast
from ._fit import TABLE_STEPS, Fit, balanced, dense_kernel
from ._forms import DENSE, Form
from ._inputs import Inputs
from ._operations import Consumer, Operation, find_consumers, visiting
from ._report import Cost
from ._samples import RIDGE, Patches, Sampler, Samples, check_finite
from ._sensitivity import Sensitivity, sensitivities

TRACED = 2  # images that tell where outputs arrive
RECTIFIED_ROUNDS = 6


@dataclass
class Layer:
    """A convolution, or the classifier, that is called once, and what is known of it."""

    conv: Conv  # or a Linear
    consumer: Consumer
    kernel: Tensor  # (N, M*K*K), with the scale of a BatchNorm that can be set
    metric: Tensor  # of its errors, and the scale of their damage: see sensitivities
    scale: float | None
    wanted: Tensor = field(default_factory=lambda: torch.empty(0))  # rows of what arrives
    damages: dict[Form, float] = field(default_factory=dict)  # of forms that it may have

    @property
    def work(self) -> float:
        """About how long its fit takes, in an arbitrary unit."""
        return self.kernel.shape[1] ** 2.0

    def cost(self, form: Form, of: Cost) -> int:
        """Parameters, or multiply-accumulates for one image as torch's FlopCounterMode counts."""
        if of == "parameters":
            biases = 0 if self.conv.bias is None else self.conv.out_channels
            return form.macs(self.conv) + biases
        return form.macs(self.conv, *(prod(shape[1:]) for shape in self.consumer.shapes))

    def fit(self, patches: Patches) -> Fit:
        return Fit(patches.steady, self.metric, self.conv.weight.shape[1])

    def predict(self, patches: Patches, forms: Iterable[Form]) -> None:
        """Finds what the answer loses if the layer alone takes each form (see sensitivities)."""

        def lost(missing: Tensor) -> float:
            return float((missing @ patches.covariance @ missing.T * self.metric).sum())

        scale = self.scale
        if scale is None:  # relative to all that the layer computes
            energy = lost(self.kernel)
            scale = 1 / energy if energy > 0 else 0.0
        fit, cross = self.fit(patches), self.kernel @ patches.steady
        self.damages[DENSE] = 0.0
        for form in forms:
            parts = fit.find(form, self.kernel, cross, TABLE_STEPS)
            self.damages[form] = scale * lost(dense_kernel(form.kind, parts) - self.kernel)


@dataclass
class Study:
    """A dense network in eval mode, its inputs, and its layers in the order of calls."""

    model: nn.Module
    inputs: Inputs  # of no images where only weights count
    sampler: Sampler
    progress: bool = False
    names: tuple[str, ...] = ()  # of all convolutions that are looked at
    head: str | None = None  # the classifier
    layers: dict[str, Layer] = field(default_factory=dict)

    @torch.no_grad()
    def look(
        self, names: Iterable[str], forms: Callable[[Layer], list[Form]] | None = None
    ) -> None:
        """Runs the network once over all images, after a few for its structure and derivatives.

        With ``forms``, what each of them would do to a layer is predicted.
        """
        few = self.inputs.first(TRACED)
        self.names, head = tuple(names), find_head(self.model, few)
        self.head = None if head in self.names else head
        watched: dict[str, Any] = self.watched(self.model)
        consumers = find_consumers(self.model, few, watched)
        numbers = {consumer.arrival for consumer in consumers.values()}
        found = sensitivities(self.model, self.inputs, watched, numbers, self.sampler.group_size)
        for name, one in consumers.items():
            kernel = watched[name].weight.detach().double().flatten(1)
            equal: Sensitivity = torch.eye(len(kernel)).to(kernel), None
            self.layers[name] = Layer(watched[name], one, kernel, *found.get(one.arrival, equal))

        def arrive(name: str, images: Tensor, norm: dict[str, Any], output: Tensor) -> None:
            layer = self.layers[name]
            if norm:
                scale = (norm["running_var"].double() + norm["eps"]).rsqrt()
                layer.kernel = layer.kernel * (scale * norm["weight"].double())[:, None]
            layer.wanted = self.sampler.rows(layer.conv, output)
            check_finite(f"'{name}'", layer.wanted)
            if forms and name != self.head:
                rows = self.sampler.patches(layer.conv, images)
                has_constant = layer.conv.bias is not None or bool(norm)
                layer.predict(Patches(rows, centered=has_constant), forms(layer))

        self.run_through(self.model, arrive, show=forms is not None)

    @torch.no_grad()
    def fit(self, student: nn.Module) -> dict[str, float]:
        """Fits all layers and the classifier; the errors of the layers behind what follows them."""
        errors: dict[str, float] = {}

        def arrive(name: str, images: Tensor, norm: dict[str, Any], output: Tensor) -> None:
            layer = self.layers[name]
            patches = self.sampler.patches(layer.conv, images)
            added = self.sampler.rows(layer.conv, output).to(patches)
            samples = Samples(patches, layer.wanted.to(patches), added, layer.consumer.activation)
            check_finite(f"'{name}'", *samples[:3])
            # the fewer images, the less the classifier changes
            ridge = layer.kernel.shape[1] / len(self.inputs) if name == self.head else RIDGE
            errors[name] = fit_layer(layer, student.get_submodule(name), samples, norm, ridge)

        self.run_through(student, arrive, blank=True)
        return errors

    def watched(self, model: nn.Module) -> dict[str, nn.Module]:
        names = self.names if self.head is None else (*self.names, self.head)
        return {name: model.get_submodule(name) for name in names}

    def run_through(
        self,
        model: nn.Module,
        arrive: Callable[[str, Tensor, dict[str, Any], Tensor], object],
        *,
        blank: bool = False,
        show: bool = True,
    ) -> None:
        """Runs ``model`` over all images, and calls ``arrive`` for each layer.

        That is where its output arrives: with its name, what it sees, the state of its BatchNorm,
        and what arrives. If ``blank``, layers answer zero at first, so what arrives is what else is
        added; what the layer has become by then is added afterwards.
        """
        consumers: dict[Any, Consumer] = {n: layer.consumer for n, layer in self.layers.items()}
        norm_numbers = {consumer.norm for consumer in consumers.values()}
        norms: dict[int | None, dict[str, Any]] = {}
        waiting: dict[int, tuple[Operation, Tensor]] = {}  # by the operation at which they arrive

        def visit(operation: Operation) -> Any:
            number, consumer = operation.number, consumers.get(operation.layer)
            if consumer:  # others may write into what it sees until its output arrives in a sum
                image, is_sum = operation.args[0], consumer.arrival not in consumer[:2]
                waiting[consumer.arrival] = operation, image.clone() if is_sum else image
            if number in norm_numbers:
                norms[number] = operation.norm_state()
            if blank and consumer:
                output = image.new_zeros((len(image), *consumer.shapes[1]))
            else:
                output = norms[number]["input"] if blank and number in norms else operation.run()
            if number in waiting:
                call, images = waiting.pop(number)
                norm = norms.pop(consumers[call.layer].norm, {})
                with without_autocast(output.device.type):  # the model may have turned it on
                    arrive(str(call.layer), images, norm, output)
                groups = [one.split(self.sampler.group_size) for one in (images, output)]
                for group, part in zip(*groups, strict=True) if blank else ():
                    response = call.function(group)
                    part.add_(F.batch_norm(**{**norm, "input": response}) if norm else response)
                bar.update(self.layers[str(call.layer)].work)
            return output

        work = sum(layer.work for layer in self.layers.values())
        with _bar(work, show and self.progress) as bar, visiting(self.watched(model), visit):
            self.inputs.run(model)

    @torch.no_grad()
    def agreement(self, student: nn.Module) -> float | None:
        """The share of images whose largest output is the same; None where there are no logits."""
        same = 0
        for batch in self.inputs.split(self.sampler.group_size):
            expected, found = batch.run(self.model), batch.run(student)
            is_matrix = isinstance(expected, Tensor) and expected.dim() == 2
            if not is_matrix or not expected.is_floating_point():
                return None
            check_finite("the outputs", expected)
            same += int((expected.argmax(1) == found.argmax(1))[found.isfinite().all(1)].sum())
        return same / len(self.inputs) if self.inputs else None


def fit_layer(
    layer: Layer, new: nn.Module, samples: Samples, norm: dict[str, Any], ridge: float
) -> float:
    """Puts the best weights into ``new`` and its BatchNorm; returns its relative squared error."""
    form, bias = Form.of(new), any(name.endswith("bias") for name, _ in new.named_parameters())
    patches = Patches(samples.patches, centered=bool(norm) or bias, ridge=ridge)
    fit, target = layer.fit(patches), samples.wanted
    parts: dict[str, Tensor] = {}
    for turn in range(1 + RECTIFIED_ROUNDS if samples.activation else 1):
        cross, mean = patches.cross(target - samples.added, layer.kernel)
        if turn == 0 or form == DENSE:
            parts = fit.find(form, patches.solve(cross), cross)
        else:
            parts = fit.improve(form.kind, parts, cross)
        kernel = dense_kernel(form.kind, parts)
        shift = mean - kernel @ patches.mean
        target = samples.target(kernel, shift)
    for name, part in balanced(form.kind, parts).items():
        conv = cast(Conv, new.get_submodule(name))
        conv.weight.copy_(part.reshape(conv.weight.shape))
        if conv.bias is not None:
            conv.bias.copy_(torch.zeros_like(shift) if norm else shift)
    if norm:  # statistics of what the layer computes; weight and bias only add the constant
        mean, variance = kernel @ patches.mean, ((kernel @ patches.covariance) * kernel).sum(1)
        # the weight makes up for any variance that its dtype can hold
        variance = variance.clamp_max(torch.finfo(norm["weight"].dtype).max)
        scale = (variance + norm["eps"]).sqrt()
        state = {
            "running_mean": mean,
            "running_var": variance,
            "weight": scale,
            "bias": shift + mean,
        }
        for name, value in state.items():
            norm[name].copy_(value)
    return samples.error(kernel, shift)


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


def _bar(work: float, show: bool) -> Any:
    """A bar of tqdm, if it is installed, whose time left is the time taken in proportion."""
    if not show or importlib.util.find_spec("tqdm") is None:
        return nullcontext(SimpleNamespace(update=lambda part: None))
    tqdm = importlib.import_module("tqdm").tqdm
    form = "{l_bar}{bar}| {elapsed}, {remaining} left"
    return tqdm(total=work, desc="projecting", bar_format=form, smoothing=0)
