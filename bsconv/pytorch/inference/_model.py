"""The module that optimize_for_inference returns."""

import contextlib
import warnings
from collections.abc import Callable
from itertools import chain
from operator import attrgetter, is_, le
from typing import Any

import torch
from torch import Tensor, nn

from ...basics.errors import described
from ...engines import Network, Runner, Tensors, difference
from ._checks import floats_in, is_rounding, outputs_of
from ._report import InferenceReport

ENOUGH = 3  # sizes at which engine and PyTorch agreed, to trust the engine with all others
VERSION = attrgetter("_version")


class OptimizedModel(nn.Module):
    """A model for inference alone: no gradients, no training mode; ``report`` says what it is.

    Its engine runs inputs of the example's size, and others as far as it takes them: of each other
    size, or of three where the model treats all alike, the first input goes through PyTorch's
    layers, ``network``, as well, which go on alone where the engine computes something else. Copies
    and pickles set the engine up again in their first call. Where weights move to another device or
    dtype, are written (but not through ``.data``), loaded or exchanged, the engine's constants are
    out of date: a warning says so, and only ``network`` runs then.

    >>> model, images = BSConvU(16, 32, 3), torch.rand(1, 16, 8, 8)
    >>> optimize_for_inference(model, images, engines="eager")(images).shape
    torch.Size([1, 32, 6, 6])
    """

    report: InferenceReport

    def __init__(self, network: Network, runner: Runner | None, example: Tensor) -> None:
        super().__init__()
        self.network = runner if isinstance(runner, Network) else network
        self.runner = None if runner is self.network else runner
        self._probe = torch.empty(0, dtype=self.network.dtype, device=example.device)
        self._proven = {(example.shape, example.dtype, example.device): True}
        self._look_at_weights()
        self.eval()

    def forward(self, input: Tensor) -> Tensors:
        """What the original computes in eval mode, in its input's dtype and without gradients."""
        # compiled code is bound to such modes: one and the same whatever the caller's are
        if self.runner is not None and torch.is_inference_mode_enabled():
            with torch.inference_mode(False):  # in which gradients are on
                return self.forward(input)
        if torch.is_grad_enabled():
            with torch.no_grad():
                return self.forward(input)
        if not isinstance(input, Tensor) or not input.is_floating_point():
            got = input.dtype if isinstance(input, Tensor) else type(input).__name__
            raise TypeError(f"input needs to be a tensor of floating-point numbers, got {got}")
        if self.runner is not None and not self._are_weights_as_seen():
            self._leave_engine("weights were written or exchanged")
        if (runner := self.runner) is None or not runner.serves(input):
            return self.network(input)
        situation = input.shape, input.dtype, input.device
        proven = self._proven.get(situation)
        if proven is None:
            return self._first(situation, input, runner)
        return runner(input) if proven else self.network(input)

    @property
    def compiles(self) -> bool:
        """Whether inputs like the example go through torch.compile."""
        return self.runner is not None and self.report.engine == "compiled"

    def train(self, mode: bool = True) -> "OptimizedModel":
        """Raises ValueError for training mode."""
        if mode:
            reason = "BatchNorms are part of its weights; train the model it was made from"
            raise ValueError(f"an optimised model cannot be trained: {reason}")
        return super().train(mode)

    def _look_at_weights(self) -> None:
        parts = "_parameters", "_buffers", "_modules"
        held = [vars(one)[part] for one in self.network.modules() for part in parts]
        self._present = [each.values() for each in held if each]
        self._seen = list(chain.from_iterable(self._present))
        tensors = [one for one in self._seen if isinstance(one, Tensor) and not one.is_inference()]
        self._floats = [one for one in tensors if one.is_floating_point()]
        self._version = sum(map(VERSION, self._floats))

    def _are_weights_as_seen(self) -> bool:
        same = all(map(is_, chain.from_iterable(self._present), self._seen))
        return same and sum(map(VERSION, self._floats)) == self._version

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "OptimizedModel":
        moved = fn(self._probe)
        if (moved.device, moved.dtype) != (self._probe.device, self._probe.dtype):
            self._leave_engine(f"the model moved to {moved.dtype} on {moved.device}")
        self._probe = moved
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _first(self, situation: Any, input: Tensor, runner: Runner) -> Tensors:
        """The output of ``network``, to which the engine's is compared unless enough agreed."""
        if runner.any_size and self._is_like_proven(input.shape):
            with contextlib.suppress(Exception):  # of the many that engines raise
                output = runner(input)
                self._proven[situation] = True
                return output
        expected = self.network(input.clone())
        try:
            apart = difference(outputs_of(runner, input), floats_in(expected))
            reason = f"its outputs differ by {apart:.1e} of the largest"
        except Exception as error:  # of the many that engines raise
            apart, reason = float("inf"), described(error)
        if apart != apart:  # NaN: this input tells nothing
            return expected
        proven = is_rounding(apart, self.network, input, self.network.dtype)
        self._proven[situation] = proven
        if not proven:
            wrong = f"does not compute inputs of {'x'.join(map(str, input.shape))} here"
            warnings.warn(f"{self.report.engine} {wrong}, PyTorch does: {reason}", stacklevel=4)
        return expected

    def _is_like_proven(self, shape: torch.Size) -> bool:
        """Whether engine and PyTorch agreed at enough sizes, at one no larger than this; engines
        treat sides of 1 in another way."""
        known = self._proven.copy().items()
        ones = [side == 1 for side in shape]
        alike = {size: right for (size, *_), right in known if [side == 1 for side in size] == ones}
        images = {size[2:] for size in alike}
        enough = len(alike) if shape[2:] in images else len(images)
        if enough < ENOUGH or not all(alike.values()):
            return False
        return any(all(map(le, size, shape)) for size in alike)

    def _leave_engine(self, why: str) -> None:
        if self.runner is not None:
            why += f", so the constants of {self.report.engine} are out of date"
            warnings.warn(f"{why}: PyTorch computes the model from now on", stacklevel=3)
        self.runner = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_proven": {}, "_present": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._look_at_weights()
