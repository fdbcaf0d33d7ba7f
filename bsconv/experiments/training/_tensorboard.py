"""Curves of a run for TensorBoard, in the run's folder, where the package tensorboard is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ._history import EpochMetrics


def open_curves(folder: Path, epochs: int) -> Any | None:
    """A writer that goes on after so many epochs, None without the package tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=epochs + 1)


def add_to_curves(writer: Any, metrics: EpochMetrics) -> None:
    for name in ("train_loss", "test_top1", "learning_rate", "seconds"):
        writer.add_scalar(name, getattr(metrics, name), metrics.epoch)
    writer.flush()
