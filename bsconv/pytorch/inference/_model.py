"""The module that optimize_for_inference returns."""

import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...basics.errors import described
from ...engines import Network, Runner, Tensors, difference
from ._checks import floats_in, outputs_of, tolerance
from ._report import InferenceReport


class OptimizedModel(nn.Module):
    """A model for inference alone: no gradients, no training mode; ``report`` says what it is.

    Its engine runs inputs of the example's size, and others as far as it takes them: of each other
    size, the first input goes through PyTorch's layers, ``network``, as well, which go on alone
    where the engine computes something else. Copies and pickles set the engine up again in their
    first call, in the same way. Where parameters move to another device or dtype, or are loaded,
    the engine's constants are out of date: a warning says so, and only ``network`` runs then.

    >>> model, images = BSConvU(16, 32, 3), torch.rand(1, 16, 8, 8)
    >>> optimize_for_inference(model, images, engines="eager")(images).shape
    torch.Size([1, 32, 6, 6])
    """

    report: InferenceReport

    def __init__(self, network: Network, runner: Runner | None, example: Tensor) -> None:
        super().__init__()
        self.network = network
        self.runner = runner
        self._probe = torch.empty(0, dtype=network.dtype, device=example.device)
        self._weights = [one for one in network.parameters() if not one.is_inference()]
        self._proven = {self._situation(example): True}
        for module in self.modules():  # each of them may be asked alone
            cast(Any, module)._register_load_state_dict_pre_hook(self._before_loading)
        self.eval()

    def forward(self, input: Tensor) -> Tensors:
        """What the original computes in eval mode, in its input's dtype and without gradients."""
        # compiled code is bound to such modes: one and the same whatever the caller's are
        with torch.inference_mode(False), torch.no_grad():
            if self.runner is None or not self.runner.serves(input):
                return self.network(input)
            proven = self._proven.get(self._situation(input))
            if proven is None:
                return self._first(input, self.runner)
            return self.runner(input) if proven else self.network(input)

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

    def _before_loading(self, *_: Any) -> None:
        self._leave_engine("weights were loaded")

    def _situation(self, input: Tensor) -> tuple[Any, ...]:
        """Another one once a parameter was written."""
        version = sum(weight._version for weight in self._weights)
        return tuple(input.shape), input.dtype, input.device, version

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "OptimizedModel":
        moved = fn(self._probe)
        if (moved.device, moved.dtype) != (self._probe.device, self._probe.dtype):
            self._leave_engine(f"the model moved to {moved.dtype} on {moved.device}")
        self._probe = moved
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _first(self, input: Tensor, runner: Runner) -> Tensors:
        """The output of ``network``, to which the engine's is compared."""
        expected = self.network(input.clone())
        try:
            apart = difference(outputs_of(runner, input), floats_in(expected))
            reason = f"its outputs differ by {apart:.1e} of the largest"
        except Exception as error:  # of the many that engines raise
            apart, reason = float("inf"), described(error)
        if apart != apart:  # NaN: this input tells nothing
            return expected
        proven = apart <= tolerance(self.network, self.network.dtype, input)
        self._proven[self._situation(input)] = proven
        if not proven:
            wrong = f"does not compute inputs of {'x'.join(map(str, input.shape))} here"
            warnings.warn(f"{self.report.engine} {wrong}, PyTorch does: {reason}", stacklevel=4)
        return expected

    def _leave_engine(self, why: str) -> None:
        if self.runner is not None:
            why += f", so the constants of {self.report.engine} are out of date"
            warnings.warn(f"{why}: PyTorch computes the model from now on", stacklevel=3)
        self.runner = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_proven": {}}
