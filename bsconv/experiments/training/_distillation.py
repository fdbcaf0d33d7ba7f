"""Distillation: a student learns what its teacher answers (Hinton et al., 2015)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from ..config import TrainConfig
from ..data import ImageDataset
from ..files.checkpoints import load_weights, read_start, read_trained
from ..model_sources import build_model
from ..normalization import Normalization
from ._inputs import check_classes, model_input, trained_model
from ._new_head import LARGER, answers

TEMPERATURE = 4.0  # softens the answers, so that small differences between wrong classes count


def student_loss(logits: Tensor, answers: Tensor, labels: Tensor, label_weight: float) -> Tensor:
    """KL divergence from the teacher's softened answers; ``label_weight`` mixes in cross-entropy.

    ``logits`` and ``answers``: shape (N, classes); ``labels``: shape (N,). A scalar.
    """
    taught = F.kl_div(
        F.log_softmax(logits / TEMPERATURE, dim=1),
        F.log_softmax(answers / TEMPERATURE, dim=1),
        log_target=True,
        reduction="batchmean",
    )
    loss = (1 - label_weight) * TEMPERATURE**2 * taught
    return loss + label_weight * F.cross_entropy(logits, labels) if label_weight else loss


def read_teacher(
    config: TrainConfig, dataset: ImageDataset
) -> tuple[nn.Module | None, Normalization]:
    """The teacher that ``config`` names, with its weights, and what its images are normalised by.

    None where it names none. Where nothing says so, its images are those of the student.

    OSError or ValueError with one line for a file that cannot be read, does not say which model it
    is of, or does not fit: other classes too.
    """
    if config.teacher is None:
        if config.teacher_model is None:
            return None, config.normalization
        teacher = build_model(config.teacher_model, dataset.num_classes, pretrained=config.dataset)
        return teacher, Normalization()
    path = Path(config.teacher)
    if config.teacher_model is not None:
        teacher = build_model(config.teacher_model, dataset.num_classes)
        start = read_start(path)
        check_classes(start.classes, dataset, path)
        load_weights(teacher, start.state, path, config.teacher_model)
        return teacher, (start.config or config).normalization
    try:
        trained = read_trained(path)
    except ValueError as error:
        raise ValueError(f"{error}; teacher_model says which model its weights are of") from error
    check_classes(trained.classes, dataset, path)
    return trained_model(trained, path), trained.config.normalization


def check_teacher(teacher: nn.Module, dataset: ImageDataset, config: TrainConfig) -> None:
    """ValueError where the teacher does not answer with a number for each class."""
    images = model_input(dataset.train_images[:1], config.image_size)
    found = answers(teacher, images, "the teacher", LARGER)
    if found.shape != (1, dataset.num_classes):
        raise ValueError(
            f"the teacher needs {dataset.num_classes} outputs per image for {dataset.name}, "
            f"got shape {tuple(found.shape)}"
        )
