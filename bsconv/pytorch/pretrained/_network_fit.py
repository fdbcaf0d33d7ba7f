"""Fits the layers of a network in turn, so that it computes what a dense network computes.

Each layer sees what the new network feeds it; wanted is what the dense one has where the output
arrives, be it behind a shortcut; and errors count as far as they reach the answer. The new network
runs once, over all images: at each layer the pass waits until that is fitted, and goes on with what
the layer computes from then on.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._tools.numerics import check_finite
from ._consumers import norm_state
from ._dense import Dense
from ._forms import Factors, dense, factors_of, fit, has_bias, put
from ._moments import Patches, constant
from ._operations import Operation, visiting
from ._samples import Samples

RECTIFIED_ROUNDS = 6


class _Waiting(NamedTuple):
    """A layer whose output has not arrived yet."""

    name: str
    call: Operation
    patches: Tensor


class NetworkFit:
    """Fits the layers of ``student`` that stand where ``dense`` has convolutions."""

    def __init__(
        self,
        dense: Dense,
        student: nn.Module,
        done: Callable[[str], object],
    ) -> None:
        self.dense = dense
        self.student = student
        self.layers = {name: student.get_submodule(name) for name in dense.names}
        self.sampler = dense.sampler
        self.done = done
        self.errors: dict[str, float] = {}
        self._waiting: dict[int, _Waiting] = {}  # by the operation at which their output arrives
        self._norms: dict[int, Operation] = {}
        consumers = dense.consumers.values()
        self._norm_numbers = {c.norm for c in consumers if c.norm is not None}

    @torch.no_grad()
    def run(self) -> Any:
        """Fits all layers; returns what the new network answers."""
        inputs = self.dense.inputs.map(torch.clone)
        with visiting(self.layers, self._visit):
            return inputs.run(self.student)

    def _visit(self, operation: Operation) -> Any:
        # a layer answers zero first, so what arrives is what else is added
        if operation.layer in self.dense.consumers:
            output = self._call(operation)
        elif operation.number in self._norm_numbers:
            self._norms[operation.number] = operation
            output = norm_state(operation)["input"]
        else:
            output = operation.run()
        if operation.number in self._waiting:
            self._arrive(self._waiting.pop(operation.number), output)
        return output

    def _call(self, operation: Operation) -> Tensor:
        images: Tensor = operation.args[0]
        name = operation.layer
        consumer = self.dense.consumers[name]
        patches = self.sampler.patches(self.dense.conv(name), images)
        self._waiting[consumer.arrival] = _Waiting(name, operation, patches)
        return images.new_zeros((len(images), *consumer.geometry[1]))

    def _arrive(self, waiting: _Waiting, output: Tensor) -> None:
        name = waiting.name
        consumer = self.dense.consumers[name]
        samples = Samples(
            waiting.patches, self.dense.wanted.pop(name), self.sampler.rows(output),
            consumer.activation,
        )  # fmt: skip
        check_finite(f"'{name}'", *samples[:3])
        norm = None if consumer.norm is None else norm_state(self._norms.pop(consumer.norm))
        self.errors[name] = self._fit(name, samples, norm)
        size = self.sampler.group_size
        given = waiting.call.args[0]
        for images, part in zip(torch.split(given, size), torch.split(output, size), strict=True):
            response = waiting.call.function(images)
            part.add_(response if norm is None else F.batch_norm(**{**norm, "input": response}))
        self.done(name)

    def _fit(self, name: str, samples: Samples, norm: dict[str, Any] | None) -> float:
        """Puts the best factors into the layer; returns its relative squared error."""
        layer, kernel = self.layers[name], self.dense.kernels[name]
        sensitivity = self.dense.sensitivities.get(name)
        metric = None if sensitivity is None else sensitivity.metric
        patches = Patches(samples.patches, centered=norm is not None or has_bias(layer))
        factors, target = factors_of(layer), samples.wanted
        for turn in range(1 if samples.activation is None else 1 + RECTIFIED_ROUNDS):
            moments = patches.moments(target - samples.added, kernel)
            factors = fit(factors, patches, moments, metric, kernel, first=turn == 0)
            shift = constant(moments, dense(factors))
            target = samples.target(dense(factors), shift)
        put(factors, shift if norm is None else torch.zeros_like(shift), layer)
        if norm is not None:
            _set_norm(norm, factors, shift, patches)
        return samples.error(dense(factors), shift)


@torch.no_grad()
def _set_norm(norm: dict[str, Any], factors: Factors, shift: Tensor, patches: Patches) -> None:
    """Statistics of what the layer computes, and a weight and bias that leave but the constant."""
    rows = dense(factors).flatten(1)
    mean, variance = rows @ patches.mean, ((rows @ patches.covariance) * rows).sum(1)
    # whatever it is, the weight makes up for it, but it has to be a number of its dtype
    variance = variance.clamp_max(torch.finfo(norm["weight"].dtype).max)
    norm["running_mean"].copy_(mean)
    norm["running_var"].copy_(variance)
    norm["weight"].copy_((variance + norm["eps"]).sqrt())
    norm["bias"].copy_(shift + mean)
