"""Curves of a run for TensorBoard, in the run's folder, where the package tensorboard is there."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

from ._history import EpochMetrics, History

__all__ = ["EventFile"]

SUFFIX = ".bsconv"  # of the files that are ours to write again


class EventFile:
    """One file of events: the epochs so far, then each new one. Where that fails, nothing at all.

    A resumed run writes its epochs again, so that none is there twice.
    """

    def __init__(self, folder: Path, history: History) -> None:
        self._writer: Any = None
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter

            for path in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
                path.unlink()
            self._writer = SummaryWriter(str(folder), filename_suffix=SUFFIX)
        for metrics in history:
            self.add(metrics)

    def add(self, metrics: EpochMetrics) -> None:
        if self._writer is None:
            return
        try:
            for name in ("train_loss", "test_top1", "learning_rate", "seconds"):
                self._writer.add_scalar(name, getattr(metrics, name), metrics.epoch)
            self._writer.flush()
        except Exception:  # a full disk, say: no reason to stop a run
            self._writer = None

    def close(self) -> None:
        with contextlib.suppress(Exception):
            if self._writer is not None:
                self._writer.close()
