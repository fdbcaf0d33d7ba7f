"""What a dense network computes and finds important, and the fit of other networks to that.

A layer's target is what the dense network has where its output arrives, even behind a shortcut, and
errors count as far as they reach the answer. The new network runs once, over all images: the pass
waits at each layer until it is fitted, and goes on with what it computes then.
"""

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from math import prod
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._forms.fit import LARGE, TABLE_STEPS, Fit, balanced, dense_kernel
from .._forms.form import DENSE, Form
from .._forms.patches import RIDGE, Patches, Sampler, rectified, relative_error
from .._forms.plans import tied
from .._tools.convs import CONVS, Conv, why_computed
from .._tools.model_tree import watching
from .._tools.numerics import without_autocast
from ._inputs import Inputs, check_finite
from ._operations import NORM_STATE, Consumer, Number, Operation, find_consumers, visiting
from ._report import Cost
from ._sensitivity import sensitivities

TRACED = 2  # images that tell where outputs arrive
RULE = "model needs the same operations for any number of images"
RECTIFIED_ROUNDS = 6
PASSES = 0.05  # work for a multiply-accumulate when sensitivities are found, see Study.work
Norm = dict[str, Any]  # arguments of F.batch_norm
Rows = tuple[Tensor, Tensor, Tensor]  # patches, what is wanted, what is added behind the layer
Arrive = Callable[[str, Tensor, Norm, Tensor], object]
Forms = Callable[["Layer"], list[Form]]


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

    def cost(self, form: Form, of: Cost) -> int:
        """Parameters, or multiply-accumulates for one image as torch's FlopCounterMode counts."""
        if of == "parameters":
            return form.macs(self.conv) + (0 if self.conv.bias is None else self.conv.out_channels)
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
    def look(self, names: Iterable[str], forms: Forms | None = None) -> None:
        """Runs the network over all images; with ``forms``, predicts what they do to each layer."""
        few = self.inputs.first(TRACED)
        self.names, self.head = tuple(names), find_head(self.model, few)
        watched: dict[str, Any] = self.watched(self.model)
        consumers = find_consumers(self.model, few, watched)
        numbers = {consumer.arrival for consumer in consumers.values()}
        shared = tied(self.model)
        for name, one in consumers.items():
            if name in shared:
                continue
            kernel = watched[name].weight.detach().double().flatten(1)
            eye = torch.eye(len(kernel)).to(kernel)
            self.layers[name] = Layer(watched[name], one, kernel, eye, None)
        layers, looked_at = self.layers.values(), [n for n in self.names if n in self.layers]
        possible = {name: forms(self.layers[name]) for name in looked_at} if forms else {}
        work = {name: self.work(name, found) for name, found in possible.items()}
        macs = sum(layer.kernel.numel() * prod(layer.consumer.shapes[1][1:]) for layer in layers)

        def shown() -> Iterator[Inputs]:
            for batch in self.inputs.split(self.sampler.group_size):
                yield batch
                bar.update(PASSES * macs * len(batch))

        def arrive(name: str, images: Tensor, norm: Norm, output: Tensor) -> None:
            layer = self.layers[name]
            if norm:
                scale = (norm["running_var"].double() + norm["eps"]).rsqrt()
                layer.kernel = layer.kernel * (scale * norm["weight"].double())[:, None]
            layer.wanted = self.sampler.rows(layer.conv, output)
            check_finite(f"'{name}'", layer.wanted)
            if name in possible:
                rows = self.sampler.patches(layer.conv, images)
                has_constant = layer.conv.bias is not None or bool(norm)
                layer.predict(Patches(rows, centered=has_constant), possible[name])
                bar.update(work[name])

        total = PASSES * macs * len(self.inputs) + sum(work.values())
        with _bar("looking", total, self.progress) as bar:
            found = sensitivities(self.model, shown(), watched, numbers)
            for layer in layers:
                layer.metric, layer.scale = found.get(layer.consumer.arrival, (layer.metric, None))
            self.run_through(self.model, arrive, blank=False)

    @torch.no_grad()
    def fit(self, student: nn.Module) -> dict[str, float]:
        """Fits all layers and the classifier; the errors of the layers behind what follows them."""
        errors: dict[str, float] = {}
        work = {name: self.work(name, [DENSE]) for name in self.layers}

        def arrive(name: str, images: Tensor, norm: Norm, output: Tensor) -> None:
            layer = self.layers[name]
            patches = self.sampler.patches(layer.conv, images)
            wanted, added = layer.wanted.to(patches), self.sampler.rows(layer.conv, output)
            check_finite(f"'{name}'", patches, wanted, added)
            # the fewer images, the less the classifier changes
            ridge = layer.kernel.shape[1] / len(self.inputs) if name == self.head else RIDGE
            new, rows = student.get_submodule(name), (patches, wanted, added.to(patches))
            errors[name] = fit_layer(layer, new, rows, norm, ridge)
            bar.update(work[name])

        with _bar("fitting", sum(work.values()), self.progress) as bar:
            self.run_through(student, arrive, blank=True)
        return errors

    def work(self, name: str, forms: Iterable[Form]) -> float:
        """About how long it takes to fit these forms of a layer, as measured in ResNets."""
        layer, images = self.layers[name], len(self.inputs)
        outputs, size = layer.kernel.shape
        rows = images * min(prod(layer.consumer.shapes[1][1:]), self.sampler.most(images))
        channels = sum(form.rank or outputs for form in forms)
        return size * (15.0 * rows + channels * size / (4 if size > LARGE else 1))

    def watched(self, model: nn.Module) -> dict[str, nn.Module]:
        names = self.names if self.head is None else (*self.names, self.head)
        return {name: model.get_submodule(name) for name in names}

    def run_through(self, model: nn.Module, arrive: Arrive, blank: bool) -> None:
        """Calls ``arrive`` with each layer's name, its images, its BatchNorm, and what arrives.

        If ``blank``, layers answer zero at first, so what arrives is what else is added; what the
        layer has become by then is added afterwards.
        """
        consumers: dict[Any, Consumer] = {n: layer.consumer for n, layer in self.layers.items()}
        expected: dict[Any, Any] = {c.norm: (n, F.batch_norm) for n, c in consumers.items()}
        expected |= {c.arrival: (n, c.sum) for n, c in consumers.items() if c.sum}
        missing = set(consumers)
        norms: dict[Number | None, Norm] = {}
        waiting: dict[Number, tuple[Operation, Tensor]] = {}  # by where they arrive

        def visit(operation: Operation) -> Any:
            number, consumer = operation.number, consumers.get(operation.layer)
            name, function = expected.get(number, (operation.layer, operation.function))
            if function != operation.function or (consumer and number != consumer.call):
                raise ValueError(f"{RULE}, got others at '{name}'")
            if consumer:  # others may write into what it sees until its output arrives in a sum
                image, is_sum = operation.args[0], consumer.arrival not in (number, consumer.norm)
                waiting[consumer.arrival] = operation, image.clone() if is_sum else image
            if number in expected and (state := operation.norm_state()):
                norms[number] = state
            if blank and consumer:
                output = image.new_zeros((len(image), *consumer.shapes[1]))
            else:
                output = norms[number]["input"] if blank and number in norms else operation.run()
            if number in waiting:
                call, images = waiting.pop(number)
                missing.discard(call.layer)
                norm = norms.pop(consumers[call.layer].norm, {})
                with without_autocast(output.device.type):  # the model may have turned it on
                    arrive(str(call.layer), images, norm, output)
                groups = [one.split(self.sampler.group_size) for one in (images, output)]
                for group, part in zip(*groups, strict=True) if blank else ():
                    response = call.function(group)
                    part.add_(F.batch_norm(**{**norm, "input": response}) if norm else response)
            return output

        with visiting(self.watched(model), visit):
            self.inputs.run(model)
        if missing:
            raise ValueError(f"{RULE}, got others at '{min(missing)}'")

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


def fit_layer(layer: Layer, new: nn.Module, rows: Rows, norm: Norm, ridge: float) -> float:
    """Puts the best weights into ``new`` and its BatchNorm; returns its relative squared error."""
    seen, wanted, added = rows
    activation, form = layer.consumer.activation, Form.of(new)

    def active(found: Tensor) -> Tensor:
        own = found[:, :, None, None].to(layer.conv.weight.dtype)  # that of a PReLU
        return activation(own)[:, :, 0, 0].to(found) if activation else found

    has_bias = any(name.endswith("bias") for name, _ in new.named_parameters())
    patches = Patches(seen, centered=bool(norm) or has_bias, ridge=ridge)
    fit, target, parts = layer.fit(patches), wanted, dict[str, Tensor]()
    for turn in range(1 + RECTIFIED_ROUNDS if activation else 1):
        cross, mean = patches.cross(target - added, layer.kernel)
        if turn == 0 or form == DENSE:
            parts = fit.find(form, patches.solve(cross), cross)
        else:
            parts = fit.improve(form.kind, parts, cross)
        kernel = dense_kernel(form.kind, parts)
        shift = mean - kernel @ patches.mean
        found = seen @ kernel.to(seen).T + shift.to(seen) + added
        target = rectified(found, wanted, active)
    for name, part in balanced(form.kind, parts).items():
        conv = cast(Conv, new.get_submodule(name))
        conv.weight.copy_(part.reshape(conv.weight.shape))
        if conv.bias is not None:
            conv.bias.copy_(torch.zeros_like(shift) if norm else shift)
    if norm:  # statistics of what the layer computes; weight and bias only add the constant
        mean, variance = kernel @ patches.mean, ((kernel @ patches.covariance) * kernel).sum(1)
        # the weight makes up for any variance that its dtype can hold
        variance = variance.clamp_max(torch.finfo(norm["weight"].dtype).max)
        state = mean, variance, (variance + norm["eps"]).sqrt(), shift + mean
        for name, value in zip(NORM_STATE, state, strict=True):
            norm[name].copy_(value)
    return relative_error(active(found), active(wanted))


def find_head(model: nn.Module, inputs: Inputs) -> str | None:
    """The Linear or 1x1 convolution whose output, maybe reshaped, the model returns, or None."""
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
    return type(module) is nn.Linear and not why_computed(module)


def _bar(name: str, work: float, show: bool) -> Any:
    """A bar of tqdm, if it is installed, whose time left is the time taken in proportion."""
    if not show or importlib.util.find_spec("tqdm") is None:
        return nullcontext(SimpleNamespace(update=lambda part: None))
    tqdm = importlib.import_module("tqdm").tqdm
    form = "{l_bar}{bar}| {elapsed}, {remaining} left"
    return tqdm(total=work, desc=name, bar_format=form, smoothing=0)
