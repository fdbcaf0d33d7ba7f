"""The optimisers of the recipes, against their definitions in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from bsconv.experiments.config import TrainConfig
from bsconv.experiments.optimizers import Muon, make_optimizer, orthogonal
from bsconv.pytorch import get_model
from bsconv.pytorch.regularization import OrthonormalBasis

SETTINGS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.5}


def kernel(*shape: int, seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """The singular values one by one: the quintic acts on each of them alone."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.linalg.norm(values)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values) @ right


@pytest.mark.parametrize("shape", [(4, 4), (3, 20), (20, 3), (1, 5), (16, 144)])
def test_steps_keep_singular_vectors_and_have_values_near_one(shape: tuple[int, int]) -> None:
    matrices = torch.stack([kernel(*shape, seed=seed).detach() for seed in range(3)])
    for matrix, step in zip(matrices, orthogonal(matrices), strict=True):
        np.testing.assert_allclose(step.numpy(), newton_schulz(matrix.double().numpy()), atol=2e-3)
        values = np.linalg.svd(step.numpy(), compute_uv=False)
        assert values.min() > 0.3
        assert values.max() < 1.3
    assert not orthogonal(torch.zeros(1, *shape)).any()  # no gradient is no step


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_two_steps_by_hand(layout: torch.memory_format) -> None:
    """Kernels of the same shape are stepped together, as if alone."""
    frozen, weights = kernel(6, 4, 3, 3, seed=9), [kernel(4, 8), kernel(8, 2, 1, 1)]
    weights += [kernel(6, 4, 3, 3, seed=seed) for seed in range(2)]
    for weight in weights[1:]:
        weight.data = weight.data.contiguous(memory_format=layout)
    by_hand = [weight.detach().double().flatten(1).numpy() for weight in weights]
    momenta = [np.zeros_like(values) for values in by_hand]
    muon = Muon([frozen, *weights], SETTINGS)
    for step in range(2):
        for number, weight in enumerate(weights):
            drawn = kernel(*weight.shape, seed=10 * step + number).detach()
            weight.grad = torch.empty_like(weight.data).copy_(drawn)
            gradient = drawn.double().flatten(1).numpy()
            momenta[number] = momentum = 0.9 * momenta[number] + 0.1 * gradient
            size = 0.1 * max(1, gradient.shape[0] / gradient.shape[1]) ** 0.5
            direction = newton_schulz(0.1 * gradient + 0.9 * momentum)
            by_hand[number] = by_hand[number] * (1 - 0.1 * 0.5) - size * direction
        muon.step()
    for weight, expected in zip(weights, by_hand, strict=True):
        np.testing.assert_allclose(weight.detach().flatten(1).numpy(), expected, atol=1e-3)
    assert torch.equal(frozen, kernel(6, 4, 3, 3, seed=9))


def names_in(optimizer: torch.optim.Optimizer, model: nn.Module) -> set[str]:
    held = {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}
    return {name for name, tensor in model.named_parameters() if id(tensor) in held}


@pytest.mark.parametrize(
    ("name", "basis"),
    [
        ("cifar_resnet20", None),
        ("cifar_resnet20_bsconvu", None),
        ("cifar_resnet20_bsconvs_p1d4", "pw1.weight"),
        ("cifar_mobilenetv2_w1d4_bsconvs_p1d6", "conv3.conv.weight"),
    ],
)
def test_muon_takes_what_mixes_channels_but_no_bases_and_sgd_the_rest(name, basis) -> None:
    model = get_model(name, 10)
    muon, sgd = make_optimizer(model, TrainConfig(recipe="fast")).optimizers
    assert isinstance(muon, Muon)
    names = {name for name, _ in model.named_parameters()}
    mixing = {
        f"{module_name}.weight"
        for module_name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1
    }
    bases = {name for name in names if basis and name.endswith(basis)}
    assert len(bases) == sum(isinstance(m, OrthonormalBasis) for m in model.modules())
    assert names_in(muon, model) == mixing - bases
    assert names_in(sgd, model) == names - mixing | bases


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"recipe": "published"}, torch.optim.SGD),
        ({"recipe": "fast", "optimizer": "sgd"}, torch.optim.SGD),
        ({"recipe": "finetune"}, torch.optim.AdamW),
    ],
)
def test_others_take_everything(settings: dict[str, str], kind: type) -> None:
    model = get_model("cifar_resnet20_bsconvu", 10)
    (one,) = make_optimizer(model, TrainConfig(**settings)).optimizers  # type: ignore[arg-type]
    assert type(one) is kind
    assert names_in(one, model) == {name for name, _ in model.named_parameters()}


def test_one_learning_rate_moves_both() -> None:
    optimizer = make_optimizer(get_model("cifar_resnet20", 10), TrainConfig(recipe="fast"))
    optimizer.step(0.06)
    muon, sgd = ([group["lr"] for group in each.param_groups] for each in optimizer.optimizers)
    assert muon == pytest.approx([0.01])
    assert sgd == [0.06] * len(sgd)
    assert optimizer.learning_rate == 0.06
