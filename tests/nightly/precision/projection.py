"""Projection of a trained network, and BatchNorm statistics, on weights and images of all kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from bsconv.pytorch import project_pretrained, reestimate_batch_norm

from .comparison import CASES, Case
from .inputs import KINDS, numbers
from .layers import NEARLY_CONSTANT, fill

Kind = Literal["u", "s"]
Method = Literal["weights", "batch_norm", "outputs"]
METHODS: tuple[Method, ...] = ("weights", "batch_norm", "outputs")
LETTERS: tuple[Kind, ...] = ("u", "s")
SOME = tuple(kind for kind in KINDS if "channel" not in kind)


def network(kind: str) -> nn.Sequential:
    """Two convolutions, the first with weights of that kind, and a classifier."""
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    layers = (first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.ReLU())
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    model = nn.Sequential(*layers, *head)
    fill(model, "ordinary")
    fill(first, kind)
    with torch.no_grad():
        for tensor in model[-1].parameters():
            tensor.copy_(numbers("ordinary", *tensor.shape, seed=7))
    return model.eval()


def _project(
    method: Method, letter: Kind, subject: str
) -> Callable[[str, torch.dtype, int], dict[str, Tensor]]:
    def compute(kind: str, dtype: torch.dtype, many: int) -> dict[str, Tensor]:
        model = network(kind if subject == "weights" else "ordinary").to(dtype)
        images = numbers(kind if subject == "images" else "ordinary", 16, 3, 8, 8, mixed=1)
        new, report = project_pretrained(
            model, images.to(dtype), letter, 0.5, method=method, progress=False
        )
        kept = [layer.weights_kept for layer in report.layers]
        errors = [layer.output_error for layer in report.layers if layer.output_error is not None]
        with torch.no_grad():
            outputs = new(images.to(dtype))
        figures = {"outputs": outputs, "weights kept": torch.tensor(kept)}
        return figures | ({"output error": torch.tensor([1.0, *errors])} if errors else {})

    return compute


def statistics(kind: str, dtype: torch.dtype, many: int) -> dict[str, Tensor]:
    images = numbers(kind, 16, 3, 8, 8, mixed=1).to(dtype)
    norm = nn.Sequential(nn.BatchNorm2d(3)).to(dtype)
    state = reestimate_batch_norm(norm, images, batch_size=8).state_dict()
    return {name: state[f"0.{name}"] for name in ("running_mean", "running_var")}


def _cases() -> Iterator[Case]:
    for method in METHODS:
        for letter in LETTERS:
            for subject in ("weights", "images"):
                yield Case(
                    f"project_pretrained, {method}, BSConv-{letter.upper()}: {subject}",
                    ("project_pretrained", "ProjectionReport", "LayerProjection"),
                    _project(method, letter, subject),
                    SOME,
                    # BatchNorm magnifies the rounding of what is nearly constant
                    bounds=NEARLY_CONSTANT if method == "batch_norm" else {},
                    overflows=("huge", "largest"),
                )
    yield Case(
        "reestimate_batch_norm",
        ("reestimate_batch_norm",),
        statistics,
        SOME,
        by_rows=("running_mean", "running_var"),
        overflows=("huge", "largest"),
    )


CASES.extend(_cases())
