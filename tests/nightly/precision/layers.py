"""Both layers with each plan: outputs, and the gradients of images and all parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bsconv.pytorch import BSConvCP, BSConvS, BSConvU

from .comparison import CASES, Case
from .inputs import KINDS, channels, numbers

Layer = BSConvU | BSConvS | BSConvCP
PLANS = {
    BSConvU: ("factored", "merged"),
    BSConvS: ("factored", "joined", "narrow", "merged"),
    BSConvCP: ("factored", "narrow", "merged"),
}
BATCH_NORM_PLANS = {
    BSConvU: ("factored",),
    BSConvS: ("factored", "narrow"),
    BSConvCP: ("factored", "narrow"),
}
NEEDED: dict[type[nn.Module], dict[str, int]] = {  # arguments
    BSConvU: {},
    BSConvS: {},
    BSConvCP: {"blueprints": 3},
}
# the variance is beyond float32, and torch.nn.BatchNorm2d then returns its bias
BEYOND_BATCH_NORM = ("huge", "largest")
# long sums, and numbers that have lost digits already
LOOSER = dict.fromkeys(("many channels", "subnormal"), 3e-5)
# one BatchNorm makes channels constant, and the next magnifies their rounding by 1 / sqrt(eps)
NEARLY_CONSTANT = dict.fromkeys(("tiny", "subnormal", "zero", "constant"), 1e-4)


def fill(layer: nn.Module, kind: str) -> None:
    """Weights of that kind in all convolutions; biases and BatchNorms as after some training."""
    with torch.no_grad():
        for seed, module in enumerate(layer.modules()):
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


def results(layer: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Outputs by channel, and gradients of their product with ordinary numbers."""
    images = images.clone().requires_grad_()
    outputs = layer(images)
    cotangent = numbers("ordinary", *outputs.shape, seed=99).to(outputs)
    named = dict(layer.named_parameters())
    gradients = torch.autograd.grad(outputs, [images, *named.values()], cotangent)
    found = {"outputs": outputs.transpose(0, 1)}
    return found | {
        f"gradient of {name}": gradient
        for name, gradient in zip(["images", *named], gradients, strict=True)
    }


def _made(
    layer_class: type[Layer], subject: str, norm: bool, kind: str, many: int
) -> tuple[Layer, Tensor]:
    """A layer and images in float32, ``subject`` of that kind."""
    count = channels(kind, many)
    options: dict[str, Any] = {"padding": 1, "with_bn": norm, **NEEDED[layer_class]}
    if layer_class is BSConvS:
        options["p"] = 0.5 if count < many else 1 / 16
    layer = layer_class(count, count, 3, **options)
    fill(layer, kind if subject == "weights" else "ordinary")
    size = 6 if count < many else 3
    kind = kind if subject == "images" else "ordinary"
    return layer, numbers(kind, 3, count, size, size, mixed=1)


def _compute(
    layer_class: type[Layer], plan: str, subject: str, norm: bool, training: bool
) -> Callable[[str, torch.dtype, int], dict[str, Tensor]]:
    def compute(kind: str, dtype: torch.dtype, many: int) -> dict[str, Tensor]:
        layer, images = _made(layer_class, subject, norm, kind, many)
        layer.to(dtype).train(training).plan = plan
        return results(layer, images.to(dtype))

    return compute


def _fixed_statistics(
    layer_class: type[Layer], subject: str
) -> Callable[[str, int], dict[str, float]]:
    """How large gradients are when the statistics of the batch are held fixed.

    In training, what changes them cancels, down to nothing for a bias before another BatchNorm.
    """

    def floors(kind: str, many: int) -> dict[str, float]:
        layer, images = _made(layer_class, subject, True, kind, many)
        layer.double()
        for module in layer.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        layer(images.double())
        fixed = results(layer.eval(), images.double())
        sizes = {name: float(tensor.detach().abs().max()) for name, tensor in fixed.items()}
        # a normalised image is as large as one, but where it is constant
        return {name: max(size, sizes.get(_bias_of(name), 0)) for name, size in sizes.items()}

    return floors


def _bias_of(name: str) -> str:
    """The bias of the BatchNorm whose weight it is."""
    return re.sub(r"(bn\d?)\.weight$", r"\1.bias", name)


def _no_floors(kind: str, many: int) -> dict[str, float]:
    return {}


def _cases() -> Iterator[Case]:
    for layer_class, plans in PLANS.items():
        for norm, training in ((False, True), (True, True), (True, False)):
            for plan in BATCH_NORM_PLANS[layer_class] if norm else plans:
                for subject in ("weights", "images"):
                    yield _case(layer_class, plan, subject, norm, training)


def _case(layer_class: type[Layer], plan: str, subject: str, norm: bool, training: bool) -> Case:
    normed = "" if not norm else f", BatchNorm in {'training' if training else 'eval'}"
    learns = norm and training
    in_torch = learns and (plan == "factored" or layer_class is BSConvCP)  # its second one
    return Case(
        title=f"{layer_class.__name__}, {plan}{normed}: {subject}",
        covers=(layer_class.__name__,),
        compute=_compute(layer_class, plan, subject, norm, training),
        kinds=tuple(kind for kind in KINDS if not (in_torch and kind in BEYOND_BATCH_NORM)),
        bounds=LOOSER | (NEARLY_CONSTANT if in_torch else {}),
        overflows=("huge", "largest"),
        by_rows=("outputs",),
        floors=_fixed_statistics(layer_class, subject) if learns else _no_floors,
    )


CASES.extend(_cases())
