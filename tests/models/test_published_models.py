"""Checkpoints of the published package 0.4.0 in our models: same names, outputs, gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bsconv.pytorch import get_model

RESIDUAL = ("resnet10", "preresnet10", "cifar_resnet20", "cifar_preresnet20", "cifar_wrn16_2")
MODELS = [
    *(f"{base}{variant}" for base in RESIDUAL for variant in ("", "_bsconvu", "_bsconvs_p1d4")),
    "cifar_resnet20_bsconvs_p3d4",
    *(
        f"{style}{family}{variant}"
        for style in ("", "cifar_")
        for family, variants in (
            ("mobilenetv1_w1d4", ("", "_bsconvu")),
            ("mobilenetv2_w1d4", ("", "_bsconvs_p1d6")),
            ("mobilenetv3_small_w7d20", ("", "_bsconvs_p1d6")),
            ("mobilenetv3_large_w7d20", ("", "_bsconvs_p1d6")),
        )
        for variant in variants
    ),
]

# A step as a user's training takes it; float64, so that a difference is one of the models.
MEASURE = """
def measure(model):
    model.double().train()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    penalty = model.reg_loss(alpha=0.1) if hasattr(model, "reg_loss") else torch.zeros(())
    logits = model(images)
    loss = F.cross_entropy(logits, torch.tensor([0, 3])) + penalty
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    logits_of_eval = model.eval()(images)  # with the running statistics that this step has left
    return {
        "training": logits.detach(),
        "eval": logits_of_eval.detach(),
        "penalty": float(penalty.detach()),
        "gradients": gradients,
    }
"""
PUBLISHED = f"""
import torch
import torch.nn.functional as F
import bsconv.pytorch
{MEASURE}
found = {{}}
for name in arguments[0]:
    model = bsconv.pytorch.get_model(architecture=name, num_classes=10)
    state = {{key: tensor.clone() for key, tensor in model.state_dict().items()}}
    found[name] = {{"state": state, **measure(model)}}
torch.save(found, "result.pt")
"""


@pytest.fixture(scope="module")
def theirs(published: Callable[..., Any]) -> dict[str, Any]:
    return published(PUBLISHED, MODELS)


@pytest.fixture(scope="module")
def measure() -> Callable[..., dict[str, Any]]:
    namespace: dict[str, Any] = {"torch": torch, "F": F}
    exec(compile(MEASURE, "measure", "exec"), namespace)
    return namespace["measure"]


@pytest.mark.parametrize("name", MODELS)
def test_a_published_checkpoint_trains_on_here_as_it_did_there(theirs, measure, name):
    model, other = get_model(name, num_classes=10), theirs[name]
    assert list(model.state_dict()) == list(other["state"])  # the order is that of optimisers
    model.load_state_dict(other["state"], strict=True)
    ours = measure(model)
    for mode in ("training", "eval"):
        scale = other[mode].abs().max()
        assert scale > 0
        assert (ours[mode] - other[mode]).abs().max() <= 1e-4 * scale
    assert ours["penalty"] == pytest.approx(other["penalty"], rel=1e-5)
    assert (ours["penalty"] > 0) == ("_bsconvs" in name)
    assert list(ours["gradients"]) == list(other["gradients"])
    total = torch.cat([gradient.flatten() for gradient in other["gradients"].values()]).norm()
    for key, gradient in other["gradients"].items():
        assert (ours["gradients"][key] - gradient).norm() <= 1e-6 * total, key
    assert total > 0
