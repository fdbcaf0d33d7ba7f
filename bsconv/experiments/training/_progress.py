"""What a run prints before its first step, and the progress bar of an epoch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from bsconv.pytorch._tools.model_tree import parameter_count

from ._processes import Processes
from ._run_folder import Run
from ._steps import Execution, Job

__all__ = ["EpochWatch", "introduction", "steps_text"]

LOOKS = 20  # at the loss in an epoch; each waits for the device, and for the other processes


def introduction(run: Run, job: Job) -> str:
    """Two lines: what is trained on what, and how its steps are computed."""
    config, done = run.config, len(run.history)
    action = f"resuming after epoch {done}:" if done else "training"
    return (
        f"{action} {config.model} ({parameter_count(job.model):,} parameters) on "
        f"{len(job.dataset.train_images):,} images of {job.dataset.name}, {config.epochs} epochs "
        f"on {config.device}\n{steps_text(job.execution, run.processes)}"
        f"{_threads_text(config.device)}"
    )


def steps_text(execution: Execution, processes: Processes) -> str:
    if processes.count == 1:
        return f"steps in {execution}"
    eager = " (torch.compile takes one process)" if execution.compile else ""
    execution = dataclasses.replace(execution, compile=False)
    return f"{processes.count} processes, steps in {execution}{eager}"


def _threads_text(device: str) -> str:
    threads = torch.get_num_threads()
    return f", {threads} thread{'s' * (threads > 1)}" if device == "cpu" else ""


class EpochWatch:
    """Iterates over ``batches`` of image numbers; ends early once the loss is not finite."""

    def __init__(
        self, title: str, batches: Sequence[Tensor], processes: Processes, progress: bool
    ) -> None:
        self._batches, self._processes = batches, processes
        self._total = torch.zeros((), device=batches[0].device)
        self._images = 0
        self._bar = tqdm(
            desc=title,
            total=sum(map(len, batches)),
            unit=" images",
            unit_scale=True,
            leave=False,
            # None: only on a terminal; a line per epoch is printed anyway
            disable=None if progress else True,
        )

    def __enter__(self) -> EpochWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()  # before anything else is printed, after an interruption too

    def __iter__(self) -> Iterator[Tensor]:
        every = max(1, len(self._batches) // LOOKS)
        for number, batch in enumerate(self._batches, 1):
            yield batch
            self._bar.update(len(batch))
            if number % every == 0:
                loss = self.mean_loss()  # the same in all processes, which stop together
                self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
                if not math.isfinite(loss):
                    return

    def add(self, loss: Tensor, images: int) -> None:
        """The loss of a step, whose mean over the processes is that of a batch of ``images``."""
        self._total += loss.detach() * images
        self._images += images

    def mean_loss(self) -> float:
        """Over the images so far."""
        total = float(self._processes.sum(self._total)) / self._processes.count
        return total / self._images
