"""A run and its folder: who may write there, what a resumed run starts from, what is kept."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import TrainConfig
from ..files import checkpoints
from ..files.checkpoints import CHECKPOINT, CONFIG, METRICS, MODEL, write_atomically
from ..files.json_files import holding, read_text
from ._processes import SINGLE, Processes, join_processes, process_device, reproducible
from ._steps import Execution, Job

FILES = (CHECKPOINT, METRICS, MODEL, CONFIG)


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch has measured."""

    epoch: int  # counted from 1
    train_loss: float  # mean over the images of what was minimised, so with the penalty
    test_top1: float  # in percent
    learning_rate: float  # of the last step
    seconds: float
    penalty: float = 0.0  # of BSConv-S, part of train_loss

    def __str__(self) -> str:
        loss = f"train loss {self.train_loss - self.penalty:.4f}"
        loss += f", penalty {self.penalty:.4f}" if self.penalty else ""
        rest = f"learning rate {self.learning_rate:.4g}, {self.seconds:.1f} s"
        return f"epoch {self.epoch}: {loss}, test top-1 {self.test_top1:.2f} %, {rest}"


class History(list[EpochMetrics]):
    """The epochs of a run in order, and in ``model`` the network as it is after the last one."""

    model: nn.Module | None = None

    @property
    def last(self) -> EpochMetrics:
        return self[-1]

    @property
    def best(self) -> EpochMetrics:
        """The epoch with the highest test accuracy, the first of equals."""
        return max(self, key=lambda metrics: metrics.test_top1)

    def to_dicts(self) -> list[dict[str, Any]]:
        return [dataclasses.asdict(metrics) for metrics in self]


@dataclass
class Run:
    """A run and what it has measured; with ``folder`` None it keeps nothing."""

    config: TrainConfig  # resolved, with the device that it has found
    folder: Path | None = None
    state: dict[str, Any] | None = None  # the checkpoint to go on from
    history: History = field(default_factory=History)
    processes: Processes = SINGLE
    plan: dict[str, str] = field(default_factory=dict)  # of a projection, as it starts
    data: int | None = None  # checksum of the images that it learns from
    finished: bool = False
    curves: Any | None = None  # of TensorBoard

    @property
    def epochs_left(self) -> range:
        return range(len(self.history) + 1, self.config.epochs + 1)

    @property
    def execution(self) -> Execution | None:
        """How the steps so far were computed: any other way would round differently."""
        if self.state is None or "execution" not in self.state:  # of an early version
            return None
        with self._fitting():
            return Execution(**self.state["execution"])

    def read(self, folder: Path, resume: bool) -> None:
        """Take over what is in ``folder``; ValueError where this run cannot go on with it."""
        self.folder = folder
        present = [name for name in FILES if (folder / name).exists()]
        if not present:
            return
        if not resume:
            ways = "resume it with --resume or choose another out folder"
            raise ValueError(f"{folder} already holds a run ({present[0]}); {ways}")
        if present == [CONFIG]:  # killed before its first epoch was over
            self._go_on_as(checkpoints.read_config(folder / CONFIG))
            return
        if CHECKPOINT not in present:
            lacking = f"no {CHECKPOINT} to resume from; choose another out folder"
            raise ValueError(f"{folder} holds {present[0]} but {lacking}")
        self.state = state = checkpoints.read_checkpoint(folder / CHECKPOINT)
        self._go_on_as(checkpoints.trained_by(state, folder / CHECKPOINT).config)
        self.plan = state.get("plan", {})
        with self._fitting():
            self.history = History(EpochMetrics(**row) for row in state["history"])
            epoch, known = state["epoch"], len(self.history)
            if not 0 < known == epoch <= self.config.epochs:
                raise ValueError(f"epoch is {epoch!r}, the history has {known}")
        self.finished = not self.epochs_left and MODEL in present

    def _go_on_as(self, saved: TrainConfig) -> None:
        """Take over how ``saved`` makes its images; ValueError where its results differ."""
        config = self.config = self.config.images_as(saved)
        # a run may become longer
        saved = dataclasses.replace(saved, epochs=max(saved.epochs, config.epochs))
        name = saved.difference(config)
        if name is None:
            return
        was, now = getattr(saved.resolved(), name), getattr(config.resolved(), name)
        if name == "normalize":
            was, now = str(saved.normalization), str(config.normalization)
        ways = "resume it with its own settings or choose another out folder"
        other = f"a run with {name}={was!r}, not {name}={now!r}"
        raise ValueError(f"{self.folder} holds {other}; {ways}")

    def _fitting(self) -> contextlib.AbstractContextManager[None]:
        """ValueError where the checkpoint turns out to be of another network or run."""
        return holding("state that fits its settings", f"{self.config.out}/{CHECKPOINT}")

    def begin(self, job: Job) -> None:
        """Go on from the checkpoint if there is one; the first to write into the folder."""
        if (state := self.state) is not None:
            with self._fitting():
                job.model.load_state_dict(state["model"])
                job.optimizer.load_state_dict(state["optimizer"])
                job.generator.set_state(state["generator"])
                torch.set_rng_state(state["cpu_rng"])
                if state["cuda_rng"] and torch.cuda.is_available():
                    torch.cuda.set_rng_state_all(state["cuda_rng"][: torch.cuda.device_count()])
        if self.folder is None:
            return
        for name in FILES:  # what a killed process had begun to write
            for leftover in self.folder.glob(f".{name}.*tmp"):
                leftover.unlink()
        write_atomically(self.folder / CONFIG, self.config.to_json().encode())
        if self.history:
            self._write_metrics(self.folder)
        with contextlib.suppress(ImportError):  # without tensorboard there are no curves
            from torch.utils.tensorboard import SummaryWriter

            self.curves = SummaryWriter(str(self.folder), purge_step=len(self.history) + 1)

    def record(self, metrics: EpochMetrics, job: Job) -> None:
        """Keep what has been measured, and all that the next epoch depends on."""
        self.history.append(metrics)
        if self.folder is None:
            return
        state = {
            "config": dataclasses.asdict(self.config),
            "num_classes": job.dataset.num_classes,
            "classes": job.dataset.classes,
            "epoch": len(self.history),
            "history": self.history.to_dicts(),
            "execution": dataclasses.asdict(job.execution),
            "data": self.data,
            "plan": self.plan,
            "model": job.model.state_dict(),
            "optimizer": job.optimizer.state_dict(),
            "generator": job.generator.get_state(),
            "cpu_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        (self.folder / MODEL).unlink(missing_ok=True)  # of an earlier end: CHECKPOINT has the same
        checkpoints.write_checkpoint(self.folder / CHECKPOINT, state)
        # after the checkpoint: a resumed run writes the metrics again from what is in there
        self._write_metrics(self.folder)
        if self.curves is not None:
            for name in ("train_loss", "penalty", "test_top1", "learning_rate", "seconds"):
                self.curves.add_scalar(name, getattr(metrics, name), metrics.epoch)
            self.curves.flush()

    def finish(self, job: Job) -> None:
        """Keep the trained model, and in its settings how the steps were computed."""
        self.history.model = job.model
        if self.folder is not None:
            precision, compile = job.execution.precision, job.execution.compile
            config = dataclasses.replace(self.config, precision=precision, compile=compile)
            classes = job.dataset.classes
            about = config, len(classes), self.plan, classes
            checkpoints.write_trained(self.folder / MODEL, job.model, *about)

    def _write_metrics(self, folder: Path) -> None:
        lines = [json.dumps(metrics) + "\n" for metrics in self.history.to_dicts()]
        write_atomically(folder / METRICS, "".join(lines).encode())


def read_history(folder: Path) -> History:
    """What the run in ``folder`` has measured so far."""
    path = folder / METRICS
    if not path.exists():
        return History()
    with holding("epochs of bsconv train", path):
        return History(EpochMetrics(**json.loads(line)) for line in read_text(path).splitlines())


@contextlib.contextmanager
def open_run(config: TrainConfig, resume: bool) -> Iterator[Run]:
    """Join the other processes, lock ``config.out`` and read what is there; ``Run.begin`` writes.
    Only the first of several processes has the folder; its settings are those of all."""
    device = process_device(config.device)
    config = dataclasses.replace(config.resolved(), device=str(device))
    with join_processes(device) as processes, reproducible(device), contextlib.ExitStack() as stack:
        run = processes.from_first(lambda: stack.enter_context(_opened_folder(config, resume)))
        run.processes = processes
        with processes.agreeing():
            if config.settings.batch_size < processes.count:
                got = f"got {config.settings.batch_size} for {processes.count} processes"
                raise ValueError(f"batch_size needs an image for each process in a step, {got}")
        if not processes.first:
            run.folder = None
        yield run


@contextlib.contextmanager
def _opened_folder(config: TrainConfig, resume: bool) -> Iterator[Run]:
    run = Run(config)
    if config.out is None:
        if resume:
            raise ValueError("resume needs out, the folder of the run to go on with, got out=None")
        yield run
        return
    folder = Path(config.out)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with checkpoints.locked(folder):
        try:
            run.read(folder, resume)
            yield run
        finally:
            if run.curves is not None:
                run.curves.close()
            # while it is locked: nobody else has begun to use it
            if made and {path.name for path in folder.iterdir()} <= {".lock"}:
                with contextlib.suppress(OSError):
                    (folder / ".lock").unlink(missing_ok=True)
                    folder.rmdir()
