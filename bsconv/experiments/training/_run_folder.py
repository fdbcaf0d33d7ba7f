"""A run and its folder: who may write there, what a resumed run starts from, what is kept."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bsconv.pytorch._tools.errors import one_line

from ..config import TrainConfig
from ..data import ImageDataset
from ..files.checkpoints import (
    CHECKPOINT,
    CONFIG,
    METRICS,
    MODEL,
    locked,
    read_checkpoint,
    read_config,
    remove_leftovers,
    write_atomically,
    write_checkpoint,
    write_trained,
)
from ._device import reproducible
from ._history import EpochMetrics, History
from ._processes import SINGLE, Processes, join_processes, process_device
from ._steps import Execution, Job
from ._tensorboard import add_to_curves, open_curves

__all__ = ["Run", "open_run"]

# what a checkpoint holds; early versions have neither "execution" nor "data"
ABOUT = ("config", "num_classes", "epoch", "history")
STATE = ("model", "optimizer", "generator", "cpu_rng", "cuda_rng")


@dataclasses.dataclass
class Run:
    """A run and what it has measured; with ``folder`` None it keeps nothing."""

    config: TrainConfig  # resolved, with the device that it has found
    folder: Path | None = None
    state: dict[str, Any] | None = None  # the checkpoint to go on from
    history: History = dataclasses.field(default_factory=History)
    finished: bool = False
    processes: Processes = SINGLE
    data: int | None = None  # checksum of the images that it learns from
    curves: Any | None = None  # of TensorBoard

    @property
    def epochs_left(self) -> range:
        return range(len(self.history) + 1, self.config.epochs + 1)

    @property
    def execution(self) -> Execution | None:
        """How the steps so far were computed: any other way would round otherwise."""
        if self.state is None or "execution" not in self.state:
            return None
        try:
            return Execution(**self.state["execution"])
        except TypeError as error:
            raise ValueError(
                f"the {CHECKPOINT} in {self.folder} does not say how its steps are computed, got "
                f"{self.state['execution']!r}"
            ) from error

    def check_data(self, dataset: ImageDataset, first: int) -> None:
        """ValueError where images differ from the first process's, or from those before a break."""
        checksum = dataset.checksum
        if checksum != first:
            raise ValueError(f"{dataset.name} differs between the processes of the run")
        kept = None if self.state is None else self.state.get("data")
        if kept not in (None, checksum):
            raise ValueError(
                f"{dataset.name} has changed since the run in {self.config.out} began; restore it, "
                f"or begin another run with --weights {self.config.out}"
            )
        self.data = checksum

    def begin(self, job: Job) -> None:
        """Go on from the checkpoint if there is one; the first to write into the folder."""
        if self.state is not None:
            self._restore(job, self.state)
        if self.folder is None:
            return
        for name in (CONFIG, CHECKPOINT, METRICS, MODEL):
            remove_leftovers(self.folder / name)
        _write_text(self.folder / CONFIG, self.config.to_json())
        if self.history:
            _write_text(self.folder / METRICS, self.history.to_jsonl())
        self.curves = open_curves(self.folder, len(self.history))

    def record(self, metrics: EpochMetrics, job: Job) -> None:
        """Keep what has been measured, and all that the next epoch depends on."""
        self.history.append(metrics)
        if self.folder is None:
            return
        state = {
            "config": dataclasses.asdict(self.config),
            "num_classes": job.dataset.num_classes,
            "epoch": len(self.history),
            "history": self.history.to_dicts(),
            "execution": dataclasses.asdict(job.execution),
            "data": self.data,
            "model": job.model.state_dict(),
            "optimizer": job.optimizer.state_dict(),
            "generator": job.generator.get_state(),
            "cpu_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        write_checkpoint(self.folder / CHECKPOINT, state)
        # after the checkpoint: a resumed run writes the metrics again from what is in there
        _write_text(self.folder / METRICS, self.history.to_jsonl())
        if self.curves is not None:
            add_to_curves(self.curves, metrics)

    def finish(self, job: Job) -> None:
        """Keep the trained model."""
        self.history.model = job.model
        if self.folder is not None:
            config = job.execution.noted_in(self.config)
            write_trained(self.folder / MODEL, job.model, config, job.dataset.num_classes)

    def _restore(self, job: Job, state: dict[str, Any]) -> None:
        try:
            job.model.load_state_dict(state["model"])
            job.optimizer.load_state_dict(state["optimizer"])
            job.generator.set_state(state["generator"])
            torch.set_rng_state(state["cpu_rng"])
            if state["cuda_rng"] and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(state["cuda_rng"][: torch.cuda.device_count()])
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise _misfit(Path(str(self.config.out)), error) from error


@contextlib.contextmanager
def open_run(config: TrainConfig, resume: bool) -> Iterator[Run]:
    """Join the other processes, lock ``config.out`` and read what is there.

    ValueError where it holds another run. Nothing is written before ``Run.begin``, and a folder
    that was made for nothing is removed again. Only the first of several processes has the folder;
    it tells the others what it found.
    """
    device = process_device(config.device)
    config = dataclasses.replace(config.resolved(), device=str(device))
    with (
        join_processes(device) as processes,
        reproducible(device),
        contextlib.ExitStack() as stack,
    ):
        run = processes.from_first(lambda: stack.enter_context(_opened_folder(config, resume)))
        with processes.agreeing():
            _refuse_unlike(run.config, config, processes)
        if not processes.first:
            run = dataclasses.replace(run, config=config, folder=None)
        run.processes = processes
        yield run


@contextlib.contextmanager
def _opened_folder(config: TrainConfig, resume: bool) -> Iterator[Run]:
    if config.out is None:
        if resume:
            raise ValueError("resume needs out, the folder of the run to go on with, got out=None")
        yield Run(config)
        return
    folder = Path(config.out)
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make the out folder {folder}: {error.strerror}") from error
    with locked(folder):
        run = Run(config, folder)
        try:
            run.state = _state(config, folder, resume)
            if run.state is not None:
                run.history = _history(run.state, folder)
            run.finished = not run.epochs_left and (folder / MODEL).exists()
            yield run
        finally:
            if run.curves is not None:
                run.curves.close()
            # while it is locked: nobody else has begun to use it
            if made and {path.name for path in folder.iterdir()} <= {".lock"}:
                with contextlib.suppress(OSError):
                    (folder / ".lock").unlink(missing_ok=True)
                    folder.rmdir()


def _state(config: TrainConfig, folder: Path, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from, None for a fresh start; ValueError if neither is right."""
    present = [name for name in (CHECKPOINT, METRICS, MODEL, CONFIG) if (folder / name).exists()]
    if not present:
        return None
    if not resume:
        raise ValueError(
            f"{folder} already holds a run ({present[0]}); resume it with --resume "
            "or choose another out folder"
        )
    if CHECKPOINT not in present:
        if METRICS in present or MODEL in present:
            raise ValueError(
                f"{folder} holds {present[0]} but no {CHECKPOINT} to resume from; "
                "choose another out folder"
            )
        _refuse_other(folder, read_config(folder / CONFIG), config)
        return None  # killed before its first epoch was over
    path = folder / CHECKPOINT
    state = read_checkpoint(path)
    missing = [part for part in ABOUT + STATE if part not in state]
    if missing:
        raise ValueError(f"{path} is incomplete: missing {missing[0]!r}")
    try:
        saved = TrainConfig.from_dict(state["config"])
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds settings that this version does not know: {error}"
        ) from error
    _refuse_other(folder, saved, config)
    return state


def _history(state: dict[str, Any], folder: Path) -> History:
    try:
        history = History.from_dicts(state["history"])
        if not 0 < len(history) == state["epoch"] <= state["config"]["epochs"]:
            raise ValueError(f"epoch is {state['epoch']!r}, the history has {len(history)}")
    except (ValueError, TypeError) as error:
        raise _misfit(folder, error) from error
    return history


def _misfit(folder: Path, error: Exception) -> ValueError:
    return ValueError(
        f"the {CHECKPOINT} in {folder} does not fit its own settings ({one_line(error)}); "
        "restore it or train into another folder"
    )


def _refuse_unlike(first: TrainConfig, config: TrainConfig, processes: Processes) -> None:
    name = first.difference(config)
    if name is not None:
        raise ValueError(
            f"all processes of a run need the same settings, got {name}={getattr(first, name)!r} "
            f"in process 0 and {name}={getattr(config, name)!r} in process {processes.rank}"
        )
    if config.batch_size < processes.count:
        raise ValueError(
            "batch_size needs an image for each process in a step, "
            f"got {config.batch_size} for {processes.count} processes"
        )


def _refuse_other(folder: Path, saved: TrainConfig, config: TrainConfig) -> None:
    name = saved.difference(config)
    if name is not None:
        was, now = getattr(saved.resolved(), name), getattr(config.resolved(), name)
        raise ValueError(
            f"{folder} holds a run with {name}={was!r}, not {name}={now!r}; "
            "resume it with its own settings or choose another out folder"
        )


def _write_text(path: Path, text: str) -> None:
    """Only if it changes something: resuming a finished run leaves all files as they are."""
    content = text.encode()
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)
