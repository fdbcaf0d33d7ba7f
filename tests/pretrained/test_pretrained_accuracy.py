"""What projection keeps of a network that others trained: a dense ResNet-20 on CIFAR-10."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.networks import ResNet20
from bsconv.experiments.data import load_dataset, to_float
from bsconv.pytorch import budget_curve, get_model, project_pretrained


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        found = torch.cat([model(batch).argmax(1) for batch in torch.split(images, 100)])
    return float((found == labels[: len(images)]).float().mean())


@pytest.mark.slow
def test_it_does_not_matter_how_activations_are_written(cifar10_folder: Path) -> None:
    data, found = load_dataset("cifar10", cifar10_folder), []
    seen, unseen = to_float(data.train_images[:100]), to_float(data.test_images[:1000])
    for function in (nn.ReLU().forward, F.relu, lambda maps: maps.clamp(min=0)):
        dense = get_model("cifar_resnet20", 10, pretrained="cifar10")
        for module in (each for each in dense.modules() if isinstance(each, nn.ReLU)):
            module.forward = function
        model, _ = project_pretrained(dense, seen, progress=False, positions=64)
        found.append(accuracy(model, unseen, data.test_labels))
    assert max(found) - min(found) <= 0.005
    assert found[0] > 0.6


@pytest.mark.skipif("BSCONV_BENCHMARKS" not in os.environ, reason="needs a core for minutes")
def test_most_of_the_accuracy_survives(shared_data: Path, cifar10_folder: Path) -> None:
    """Measured: 73.9 % as U; 83.4, 88.3, 90.1 and 91.0 % within budgets; dense 91.4 %."""
    data = load_dataset("cifar10", cifar10_folder)
    seen, unseen = to_float(data.train_images[:500]), to_float(data.test_images[:2000])
    dense = ResNet20()
    dense.load_state_dict(load_file(shared_data / "resnet20-cifar10.safetensors"), strict=False)

    model, report = project_pretrained(dense, seen, progress=False)
    assert accuracy(model, unseen, data.test_labels) >= 0.73
    assert report.agreement is not None
    assert report.agreement >= 0.75
    curve = budget_curve(dense, seen, progress=False)
    for budget, least in ((0.15, 0.82), (0.25, 0.875), (0.35, 0.893), (0.5, 0.905)):
        model, _ = project_pretrained(dense, curve, budget=budget, progress=False)
        assert accuracy(model, unseen, data.test_labels) >= least
