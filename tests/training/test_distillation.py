"""Students that learn what their teacher answers."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from bsconv.experiments.data import load_dataset
from bsconv.experiments.training import TrainConfig, train
from bsconv.experiments.training._train import student_loss
from bsconv.pytorch import BSConvCP, project_pretrained

SHORT: dict[str, Any] = {
    "dataset": "synthetic", "recipe": "finetune", "epochs": 2, "train_limit": 64, "test_limit": 32,
    "batch_size": 32,
}  # fmt: skip


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    convs = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    return nn.Sequential(convs[0], nn.BatchNorm2d(8), nn.ReLU(), convs[1], *head).eval()


def test_the_loss_is_the_divergence_of_softened_answers() -> None:
    torch.manual_seed(0)
    logits, answers = torch.randn(2, 5, 10, dtype=torch.float64)
    labels = torch.randint(10, (5,))
    p, q = ((x / 4).softmax(1) for x in (answers, logits))
    divergence = 16 * (p * (p / q).log()).sum(1).mean()
    entropy = -logits.softmax(1)[torch.arange(5), labels].log().mean()
    for weight in (0.0, 0.3, 1.0):
        expected = (1 - weight) * divergence + weight * entropy
        torch.testing.assert_close(student_loss(logits, answers, labels, weight), expected)
    assert student_loss(answers, answers, labels, 0.0).abs() < 1e-12


def test_a_student_comes_closer_to_its_teacher_without_labels() -> None:
    teacher, student = network(0), network(1)
    images = load_dataset("synthetic").test_images[:64] / 255

    def difference() -> Tensor:
        with torch.no_grad():
            return (student(images) - teacher(images)).square().mean()

    before, statistics = difference(), student[1].running_mean.clone()
    kept = {name: value.clone() for name, value in teacher.state_dict().items()}
    config = TrainConfig(**SHORT | {"epochs": 6, "learning_rate": 0.05})
    assert train(config, model=student, teacher=teacher, progress=False).model is student
    assert difference() < 0.9 * before
    assert torch.equal(student[1].running_mean, statistics)
    torch.testing.assert_close(teacher.state_dict(), kept, rtol=0, atol=0)


def test_labels_change_what_is_learnt_only_where_they_weigh() -> None:
    ends = []
    for weight in (0.0, 0.5):
        student = network(1)
        config = TrainConfig(**SHORT, label_weight=weight)
        train(config, model=student, teacher=network(0), progress=False)
        ends.append(student[-1].weight)
    assert not torch.equal(*ends)


@pytest.mark.slow
def test_a_resumed_student_ends_with_the_same_bits(tmp_path: Path) -> None:
    def student() -> nn.Module:
        images = load_dataset("synthetic").train_images[:16] / 255
        return project_pretrained(network(0), images, budget=0.6, align=1, progress=False)[0]

    def trained(model: nn.Module, **how: Any) -> nn.Module:
        config = TrainConfig(**SHORT, out=how.pop("out", None))
        train(config, model=model, teacher=network(0), progress=False, **how)
        return model

    whole, parts, out = trained(student()), student(), str(tmp_path / "run")
    assert any(isinstance(layer, BSConvCP) for layer in whole)
    with pytest.raises(KeyboardInterrupt):
        trained(parts, out=out, after_epoch=Mock(side_effect=KeyboardInterrupt))
    again = trained(student(), out=out, resume=True)
    torch.testing.assert_close(again.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert not torch.equal(again[-1].weight, parts[-1].weight)


def test_a_teacher_with_other_classes_is_refused() -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7))
    with pytest.raises(ValueError, match=r"teacher needs 10 outputs .* got shape \(1, 7\)"):
        train(TrainConfig(**SHORT), model=network(1), teacher=teacher, progress=False)
