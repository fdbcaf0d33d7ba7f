"""What a run prints before its first step, and the progress bar of an epoch."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from tqdm import tqdm

from ...pytorch._tools.model_tree import parameter_count
from ._processes import Processes
from ._run_folder import Run
from ._steps import Execution, Job


def introduction(run: Run, job: Job) -> str:
    """Two lines: what is trained on what, and how its steps are computed."""
    config, done = run.config, len(run.history)
    action = f"resuming after epoch {done}:" if done else "training"
    before = config.epochs if run.state is None else run.state["config"]["epochs"]
    if before < config.epochs:
        cycle = config.settings.milestones is None
        rate = (
            "its cycle is stretched over all" if cycle else "its rate drops after the same epochs"
        )
        longer = f"for {config.epochs} epochs and not {before}"
        action = f"resuming after epoch {done}, {longer}; {rate}:"
    about = f" ({job.dataset.about})" if job.dataset.about else ""
    threads = torch.get_num_threads()
    on_threads = f", {threads} thread{'s' * (threads > 1)}" if config.device == "cpu" else ""
    return (
        f"{action} {config.model} ({parameter_count(job.model):,} parameters) on "
        f"{len(job.dataset.train_images):,} images of {job.dataset.name}{about}, "
        f"{config.epochs} epochs on {config.device}\n"
        f"{steps_text(job.execution, run.processes)}{on_threads}"
    )


def steps_text(execution: Execution, processes: Processes) -> str:
    if processes.count == 1:
        return f"steps in {execution}"
    eager = " (torch.compile takes one process)" if execution.compile else ""
    execution = dataclasses.replace(execution, compile=False)
    return f"{processes.count} processes, steps in {execution}{eager}"


def progress_bar(title: str, images: int, progress: bool) -> tqdm[Any]:
    """Only on a terminal, and taken away when it is closed; a line per epoch is printed anyway."""
    return tqdm(
        desc=title,
        total=images,
        unit=" images",
        unit_scale=True,
        leave=False,
        disable=None if progress else True,
    )
