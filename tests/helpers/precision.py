"""float32 compared with float64: numbers chosen to hurt, and how far apart results may be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

BEYOND = ("huge", "largest")
SCALES = {"tiny": 1e-30, "huge": 1e30, "subnormal": 1e-40}
# docs/reliability.md says what they are
SPECIAL = ("largest", "zero", "constant", "rank-deficient", "mixed scales")
OF_ANY_WIDTH = ("ordinary", *SCALES, *SPECIAL)
KINDS = (*OF_ANY_WIDTH, "one channel", "many channels")
SMALLEST = torch.finfo(torch.float32).tiny  # below it, float32 loses digits and then all
# one BatchNorm makes channels constant, and the next magnifies their rounding by 1 / sqrt(eps)
NEARLY_CONSTANT = dict.fromkeys(("tiny", "subnormal", "zero", "constant"), 1e-4)

Results = dict[str, Tensor]
Compute = Callable[[str, torch.dtype, int], Results]


def channels(kind: str, many: int) -> int:
    """How many channels a layer has on both sides."""
    return {"one channel": 1, "many channels": many}.get(kind, 8)


def numbers(kind: str, *shape: int, seed: int = 0, mixed: int = 0) -> Tensor:
    """Numbers of that kind, (filters or images, channels, ...), in float32.

    Scales are mixed along the dimension ``mixed``: filters of a kernel, channels of images.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(*shape, generator=generator)
    if kind == "largest":
        return drawn.clamp(-1, 1) * torch.finfo(torch.float32).max
    if kind == "zero":
        return torch.zeros(shape)
    if kind == "constant":
        return torch.full(shape, 0.1)
    if kind == "rank-deficient":
        mixing = torch.randn(shape[1], min(2, shape[1]), generator=generator)
        return torch.einsum("mr,nr...->nm...", mixing, drawn[:, : mixing.shape[1]])
    if kind == "mixed scales":
        exponents = torch.linspace(-9, 9, shape[mixed])
        return drawn * 10 ** exponents.reshape(-1, *[1] * (len(shape) - 1 - mixed))
    return drawn * SCALES.get(kind, 1.0)


@torch.no_grad()
def fill(model: nn.Module, kind: str) -> None:
    """Weights of that kind in all convolutions; biases and BatchNorms as after some training."""
    for seed, module in enumerate(model.modules()):
        if isinstance(module, nn.Conv2d):
            module.weight.copy_(numbers(kind, *module.weight.shape, seed=seed))
            if module.bias is not None:
                module.bias.copy_(numbers("ordinary", len(module.bias), seed=seed))
        elif isinstance(module, nn.BatchNorm2d):
            drawn = numbers("ordinary", 4, module.num_features, seed=seed)
            module.weight.copy_(drawn[0].abs() + 0.5)
            module.bias.copy_(drawn[1])
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.copy_(drawn[2])
                module.running_var.copy_(drawn[3].abs() + 0.5)


@dataclass(frozen=True, eq=False)
class Case:
    """What is computed, for which kinds of numbers, and what is promised of it.

    ``compute(kind, dtype, many)`` gives named tensors, on the same numbers in both precisions. The
    error of each is its largest difference relative to its largest entry; those named ``by_rows``
    are compared row by row. ``looser`` are other bounds, for some kinds. Where results are
    ``beyond`` float32, they need to be infinite, NaN or a ValueError unless they are right.
    """

    title: str
    compute: Compute
    kinds: tuple[str, ...] = KINDS
    bound: float = 1e-5
    looser: Mapping[str, float] = field(default_factory=dict)
    beyond: tuple[str, ...] = ()
    by_rows: tuple[str, ...] = ()

    def error(self, kind: str, many: int) -> float:
        """The largest error; AssertionError where it is not as promised."""
        double = self._attempt(kind, torch.float64, many)
        single = self._attempt(kind, torch.float32, many)
        if isinstance(double, str) or isinstance(single, str):
            in_float32_alone = isinstance(single, str) and not isinstance(double, str)
            assert single == double or (in_float32_alone and kind in self.beyond), single
            return 0.0
        worst = 0.0
        for name, expected in double.items():
            found = single[name]
            assert kind in self.beyond or found.isfinite().all(), f"{name} is infinite or NaN"
            error = difference(found, expected, by_rows=name in self.by_rows)
            assert error <= self.looser.get(kind, self.bound), f"{name} differs by {error:.1e}"
            worst = max(worst, error)
        return worst

    def _attempt(self, kind: str, dtype: torch.dtype, many: int) -> Results | str:
        try:
            return self.compute(kind, dtype, many)
        except ValueError as error:
            return f"ValueError: {error}"


def difference(found: Tensor, expected: Tensor, by_rows: bool = False) -> float:
    """Of the entries where ``found`` is a number; infinite where ``expected`` is none."""
    assert found.shape == expected.shape
    rows = len(found) if by_rows else 1
    found, expected = (each.detach().double().reshape(rows, -1) for each in (found, expected))
    largest = expected.abs().amax(1, keepdim=True).clamp_min(SMALLEST)
    gap = torch.where(found.isfinite(), (found / largest - expected / largest).abs(), 0.0)
    return float(gap.nan_to_num(nan=torch.inf).max()) if gap.numel() else 0.0


def each_kind(cases: list[Case]) -> pytest.MarkDecorator:
    """Parametrises a test with all cases and kinds of numbers."""
    pairs = [(case, kind) for case in cases for kind in case.kinds]
    names = [f"{case.title}-{kind}" for case, kind in pairs]
    return pytest.mark.parametrize(("case", "kind"), pairs, ids=names)
