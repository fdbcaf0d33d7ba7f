"""The folder of a run: who may write there, what a resumed run starts from, what is kept."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import TrainConfig
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
from ._history import History
from ._optimizers import Optimizers
from ._processes import SINGLE, Processes
from ._signals import uninterrupted
from ._steps import Execution
from ._tensorboard import EventFile

__all__ = ["Run", "open_run"]

CHECKPOINT_PARTS = (
    *("config", "num_classes", "epoch", "history"),
    *("model", "optimizer", "generator", "cpu_rng", "cuda_rng"),
)


@dataclasses.dataclass
class Run:
    """A run and its folder; with ``folder`` None it keeps nothing."""

    config: TrainConfig
    folder: Path | None
    state: dict[str, Any] | None  # the checkpoint to go on from
    finished: bool = False
    events: EventFile | None = None
    data: int | None = None  # checksum of the images that it learns from

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

    @property
    def history(self) -> History:
        """The epochs so far."""
        if self.state is None:
            return History()
        try:
            history = History.from_dicts(self.state["history"])
            if not 0 < len(history) == self.state["epoch"] <= self.config.epochs:
                raise ValueError(
                    f"epoch is {self.state['epoch']!r}, the history has {len(history)}"
                )
        except (ValueError, TypeError) as error:
            raise self._misfit(error) from error
        return history

    def check_data(self, name: str, checksum: int, first: int) -> None:
        """ValueError where images are not those of the first process, or those before a break."""
        if checksum != first:
            raise ValueError(f"{name} differs between the processes of the run")
        kept = None if self.state is None else self.state.get("data")
        if kept not in (None, checksum):  # None: a checkpoint of earlier versions
            raise ValueError(
                f"{name} has changed since the run in {self.config.out} began; restore it, or "
                f"begin another run with --weights {self.config.out}"
            )
        self.data = checksum

    def begin(self, model: nn.Module, optimizer: Optimizers, generator: torch.Generator) -> History:
        """Go on from the checkpoint if there is one; the history so far. The first to write."""
        history = self.history
        if self.state is not None:
            self._restore(model, optimizer, generator, self.state)
        if self.folder is not None:
            for name in (CONFIG, CHECKPOINT, METRICS, MODEL):
                remove_leftovers(self.folder / name)
            _write_text(self.folder / CONFIG, self.config.to_json())
            if history:
                _write_text(self.folder / METRICS, history.to_jsonl())
            self.events = EventFile(self.folder, history)
        return history

    def save(
        self,
        history: History,
        model: nn.Module,
        optimizer: Optimizers,
        generator: torch.Generator,
        num_classes: int,
        execution: Execution,
    ) -> None:
        """Keep all that the next epoch depends on, and what has been measured."""
        if self.folder is None:
            return
        state = {
            "config": dataclasses.asdict(self.config),
            "num_classes": num_classes,
            "epoch": len(history),
            "history": history.to_dicts(),
            "execution": dataclasses.asdict(execution),
            "data": self.data,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "generator": generator.get_state(),
            "cpu_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        with uninterrupted():
            write_checkpoint(self.folder / CHECKPOINT, state)
            # after the checkpoint: a resumed run writes the metrics again from what is in there
            _write_text(self.folder / METRICS, history.to_jsonl())
        if self.events is not None:
            self.events.add(history.last)

    def finish(self, model: nn.Module, num_classes: int, execution: Execution) -> None:
        if self.folder is not None:
            config = execution.noted_in(self.config)
            write_trained(self.folder / MODEL, model, config, num_classes)

    def _restore(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        generator: torch.Generator,
        state: dict[str, Any],
    ) -> None:
        try:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            generator.set_state(state["generator"])
            torch.set_rng_state(state["cpu_rng"])
            if state["cuda_rng"] and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(state["cuda_rng"][: torch.cuda.device_count()])
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._misfit(error) from error

    def _misfit(self, error: Exception) -> ValueError:
        reason = " ".join(str(error).split())[:160]
        return ValueError(
            f"the {CHECKPOINT} in {self.folder} does not fit its own settings ({reason}); "
            "restore it or train into another folder"
        )


@contextlib.contextmanager
def open_run(config: TrainConfig, resume: bool, processes: Processes = SINGLE) -> Iterator[Run]:
    """Lock ``config.out`` and read what is there; refuses to touch another run.

    Nothing is written before ``Run.begin``, and a folder made in vain is removed again. Of several
    processes the first alone does so, and tells the others what it found.
    """
    with contextlib.ExitStack() as stack:
        run = processes.from_first(lambda: stack.enter_context(_open_run(config, resume)))
        processes.together(_refuse_unlike, run.config, config, processes)
        yield run if processes.first else dataclasses.replace(run, folder=None)


@contextlib.contextmanager
def _open_run(config: TrainConfig, resume: bool) -> Iterator[Run]:
    if config.out is None:
        if resume:
            raise ValueError("resume needs the out folder of the run to go on with, got out=None")
        yield Run(config, None, None)
        return
    folder = Path(config.out)
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make the out folder {folder}: {error.strerror}") from error
    with locked(folder):
        run: Run | None = None
        try:
            state = _state(config, folder, resume)
            over = state is not None and state["epoch"] == config.epochs
            run = Run(config, folder, state, finished=over and (folder / MODEL).exists())
            yield run
        finally:
            if run is not None and run.events is not None:
                run.events.close()
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
    missing = [part for part in CHECKPOINT_PARTS if part not in state]
    if missing:
        raise ValueError(f"{path} is no whole checkpoint of bsconv train, it lacks {missing[0]!r}")
    try:
        saved = TrainConfig.from_dict(state["config"])
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds settings that this version does not know: {error}"
        ) from error
    _refuse_other(folder, saved, config)
    return state


def _refuse_unlike(first: TrainConfig, config: TrainConfig, processes: Processes) -> None:
    name = first.difference(config)
    if name is not None:
        raise ValueError(
            f"all processes of a run need the same settings, got {name}={getattr(first, name)!r} "
            f"in process 0 and {name}={getattr(config, name)!r} in process {processes.rank}"
        )
    if config.batch_size < processes.count:
        raise ValueError(
            f"batch_size counts the images of all processes together and must be at least their "
            f"number, {processes.count}, got {config.batch_size}"
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
    """Only where it changes something, so that resuming a finished run leaves all files alone."""
    content = text.encode()
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)
