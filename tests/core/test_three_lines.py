"""The three promised lines on other people's models, against the published package 0.4.0.

Both packages get the same models with the same weights, each in a process of its own, and must
replace the same layers, end with the same parameters, and compute the same outputs and penalty.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import bsconv.pytorch

MODELS = [
    *("torchvision:resnet18", "torchvision:resnet34", "torchvision:densenet121"),
    *(f"torchvision:vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    *("pytorchcv:resnet18", "pytorchcv:resnet20_cifar10", "pytorchcv:vgg11"),
    "pytorchcv:densenet121",
]
VARIANTS = ("u", "s")

# runs here and in the other process, where `bsconv` is another package
MEASURE = '''
import warnings
import torch
from torch import nn
import torchvision
import pytorchcv.model_provider

def build(name):
    source, _, architecture = name.partition(":")
    if source == "pytorchcv":
        return pytorchcv.model_provider.get_model(architecture, pretrained=False)
    options = {"init_weights": False} if "vgg" in architecture else {}
    return torchvision.models.get_model(architecture, weights=None, num_classes=10, **options)

def image_size(name):
    if name.startswith("torchvision:"):
        return 64
    return 32 if "cifar" in name else 224

@torch.no_grad()
def fill(model):
    """The same weights for the same names; every layer keeps about the size of its input."""
    for index, (name, tensor) in enumerate(sorted(model.state_dict().items())):
        generator = torch.Generator().manual_seed(index)
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(0, (2 / max(tensor[0].numel(), 1)) ** 0.5, generator=generator)

def apply(variant, model):
    if variant == "u":
        model = bsconv.pytorch.BSConvU_Replacer().apply(model)
    else:
        model = bsconv.pytorch.BSConvS_Replacer().apply(model)
    return model

def measure(name, variant):
    with torch.device("meta"):
        model = apply(variant, build(name))
    found = {
        "layers": [n for n, m in model.named_modules() if type(m).__name__.startswith("BSConv")],
        "parameters": {n: p.numel() for n, p in model.named_parameters()},
    }
    model = build(name)
    if ":vgg" in name:  # its three linear layers would take most of the time
        model.classifier = nn.Identity()
        if hasattr(model, "output"):
            model.output = nn.Identity()
    model = apply(variant, model)
    fill(model)
    size = image_size(name)
    images = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found["outputs"] = model.eval()(images)
    loss = torch.zeros(())
    if variant == "s":
        loss += model.reg_loss(alpha=0.1)
    found["penalty"] = float(loss.detach())
    return found
'''

PUBLISHED = f"""
import bsconv.pytorch
{MEASURE}
models, variants = arguments
torch.save({{f"{{m}} {{v}}": measure(m, v) for m in models for v in variants}}, "result.pt")
"""


@pytest.fixture(scope="module")
def theirs(published: Callable[..., Any]) -> dict[str, Any]:
    return published(PUBLISHED, MODELS, list(VARIANTS))


@pytest.fixture(scope="module")
def measure() -> Callable[[str, str], dict[str, Any]]:
    namespace: dict[str, Any] = {"bsconv": bsconv}
    exec(compile(MEASURE, "measure", "exec"), namespace)
    return namespace["measure"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("model", MODELS)
def test_replaced_models_equal_those_of_the_published_package(theirs, measure, model, variant):
    ours, other = measure(model, variant), theirs[f"{model} {variant}"]
    assert ours["layers"] == other["layers"]
    assert len(ours["layers"]) > 5
    assert ours["parameters"] == other["parameters"]
    scale = other["outputs"].abs().max()
    assert scale > 0
    assert (ours["outputs"] - other["outputs"]).abs().max() <= 1e-4 * scale
    assert ours["penalty"] == pytest.approx(other["penalty"], rel=1e-5)
    assert (ours["penalty"] > 0) == (variant == "s")


def test_layers_start_from_the_same_random_weights(published):
    script = """
import torch, bsconv.pytorch
conv = lambda: torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3), torch.nn.Conv2d(16, 16, 5))
torch.manual_seed(0)
states = []
for replacer in (bsconv.pytorch.BSConvU_Replacer(), bsconv.pytorch.BSConvS_Replacer(with_bn=True)):
    states.append(replacer.apply(conv()).state_dict())
"""
    theirs = published(script + 'torch.save(states, "result.pt")')
    namespace: dict[str, Any] = {}
    exec(script, namespace)
    for ours, other in zip(namespace["states"], theirs, strict=True):
        assert list(ours) == list(other)
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, other[name], rtol=0, atol=0)
