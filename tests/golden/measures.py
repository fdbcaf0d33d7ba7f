"""Numbers of models that 0.4.0 and this package must agree on; runs where `bsconv` is either one.

Weights and images come from generators with fixed seeds, so that what is recorded stays small:
long lists are recorded by their length and a digest, tensors by their norm and some entries.
"""

import gc
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bsconv.pytorch import BSConvS_Replacer, BSConvU_Replacer, ModelProfiler, get_model

VGG = ("vgg11", "vgg13_bn", "vgg16", "vgg19_bn")
LIBRARIES = {
    "torchvision": ("resnet18", "resnet34", "densenet121", *VGG),
    "pytorchcv": ("resnet18", "resnet20_cifar10", "vgg11", "densenet121"),
}
FOREIGN = [f"{library}:{name}" for library, names in LIBRARIES.items() for name in names]
RESIDUAL = ["resnet10", "preresnet10", "cifar_resnet20", "cifar_preresnet20", "cifar_wrn16_2"]
MOBILE = {
    "mobilenetv1_w1d4": ["", "_bsconvu"],
    "mobilenetv2_w1d4": ["", "_bsconvs_p1d6"],
    "mobilenetv3_small_w7d20": ["", "_bsconvs_p1d6"],
    "mobilenetv3_large_w7d20": ["", "_bsconvs_p1d6"],
}
NETWORKS = [
    *(f"{base}{variant}" for base in RESIDUAL for variant in ("", "_bsconvu", "_bsconvs_p1d4")),
    "cifar_resnet20_bsconvs_p3d4",
    *(
        f"{style}{base}{variant}"
        for style in ("", "cifar_")
        for base, variants in MOBILE.items()
        for variant in variants
    ),
]


def foreign(names: Iterable[str] = FOREIGN) -> dict[str, Any]:
    """The three lines of the README on models of other libraries."""
    return {f"{name} {variant}": _replaced(name, variant) for name in names for variant in "us"}


def networks(names: Iterable[str] = NETWORKS) -> dict[str, Any]:
    """One step of training of each network, as a user's training takes it."""
    return {name: _trained(get_model(architecture=name, num_classes=10)) for name in names}


def counts(names: Iterable[str], num_classes: int = 10) -> dict[str, list[int]]:
    """Parameters and FLOPs of networks, built on the meta device."""
    return {name: _counted(name, num_classes) for name in names}


def first_weights() -> list[dict[str, Any]]:
    """What replacers begin with, by seed."""
    found = []
    for replacer in (BSConvU_Replacer(), BSConvS_Replacer(with_bn=True)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 5))
        state = replacer.apply(model).state_dict()
        found.append({name: _extract(tensor.double(), 4) for name, tensor in state.items()})
    return found


def _replaced(name: str, variant: str) -> dict[str, Any]:
    with torch.device("meta"):
        model = _apply(variant, _build(name))
    layers = [n for n, m in model.named_modules() if type(m).__name__.startswith("BSConv")]
    parameters = [(n, p.numel()) for n, p in model.named_parameters()]
    found: dict[str, Any] = {"layers": _digest(layers), "parameters": _digest(parameters)}
    model = _build(name)
    if ":vgg" in name:  # its three linear layers would take most of the time
        model.classifier = nn.Identity()
        if hasattr(model, "output"):
            model.output = nn.Identity()
    model = _apply(variant, model)
    _fill(model)
    side = 32 if "cifar" in name else 224 if name.startswith("pytorchcv") else 64
    with torch.no_grad():
        found["outputs"] = _extract(model.eval()(_images(1, side)))
    found["penalty"] = float(model.reg_loss(alpha=0.1).detach()) if variant == "s" else 0.0
    return found


def _trained(model: nn.Module) -> dict[str, Any]:
    """In float64, so that a difference is one of the models."""
    keys = list(model.state_dict())  # the order is that of optimisers
    _fill(model)
    model.double().train()
    images = _images(2, 32).double()
    penalty = model.reg_loss(alpha=0.1) if hasattr(model, "reg_loss") else torch.zeros(())
    logits = model(images)
    (F.cross_entropy(logits, torch.tensor([0, 3])) + penalty).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    direction = torch.randn(len(gradient), generator=torch.Generator().manual_seed(0)).double()
    return {
        "keys": _digest(keys),
        "training": _extract(logits.detach()),
        "eval": _extract(model.eval()(images).detach()),  # with the statistics of this step
        "penalty": float(penalty.detach()),
        "gradient": _extract(gradient) + _extract(gradient @ direction / direction.norm(), 0),
    }


def _counted(name: str, num_classes: int) -> list[int]:
    side = 32 if name.startswith("cifar_") else 224
    gc.disable()  # it would look through a growing model over and over
    try:
        with torch.device("meta"):
            model = get_model(architecture=name, num_classes=num_classes)
        profiler = ModelProfiler(model, (1, 3, side, side))
    finally:
        gc.enable()
    return [profiler.total_parameter_count, profiler.total_flop_count]


def _build(name: str) -> nn.Module:
    source, _, architecture = name.partition(":")
    if source == "pytorchcv":
        import pytorchcv.model_provider

        return pytorchcv.model_provider.get_model(architecture, pretrained=False)
    import torchvision

    options: dict[str, Any] = {"init_weights": False} if "vgg" in architecture else {}
    return torchvision.models.get_model(architecture, weights=None, num_classes=10, **options)


def _apply(variant: str, model: nn.Module) -> Any:
    return (BSConvU_Replacer() if variant == "u" else BSConvS_Replacer()).apply(model)


def _images(count: int, side: int) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _fill(model: nn.Module) -> None:
    """The same weights for the same names; every layer keeps about the size of its input."""
    for index, (name, tensor) in enumerate(sorted(model.state_dict().items())):
        generator = torch.Generator().manual_seed(index)
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(0, (2 / max(tensor[0].numel(), 1)) ** 0.5, generator=generator)


def _extract(tensor: Tensor, entries: int = 10) -> list[float]:
    """The norm, then entries from all over the tensor."""
    flat = tensor.flatten()
    picked = torch.linspace(0, len(flat) - 1, min(entries, len(flat))).long()
    return [float(f"{value:.7e}") for value in (flat.double().norm(), *flat[picked])]


def _digest(values: Sequence[Any]) -> list[Any]:
    text = json.dumps(values)
    return [len(values), hashlib.sha256(text.encode()).hexdigest()[:16]]
