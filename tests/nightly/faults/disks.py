"""Disks that are full, cannot be written to, or fail at any one step of any write."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from bsconv.experiments.config import TrainConfig
from bsconv.experiments.files.checkpoints import CHECKPOINT, read_checkpoint
from bsconv.experiments.training import train

from ..runs import Runs, check_refused, check_same

STEPS = ("write_bytes", "fsync", "replace")
REASONS = (errno.ENOSPC, errno.EIO)


def at_every_write(folder: Path, config: TrainConfig) -> dict[str, int]:
    """Let each step of each write of a run fail once, for each reason, and go on after it.

    AssertionError where the error is no line, the last checkpoint is not whole, or the run that
    went on differs from one without fault.
    """
    straight = folder / "straight"
    _train(config, straight)
    failures = 0
    for step, reason in itertools.product(STEPS, REASONS):
        for number in itertools.count(1):
            out = folder / f"{step}-{reason}-{number}"
            with _failing(step, number, reason) as failed:
                try:
                    _train(config, out)
                except OSError as error:
                    if not failed or "\n" in str(error) or str(out) not in str(error):
                        raise AssertionError(f"no line that names the file: {error}") from error
            if not failed:
                break  # there was no such write any more
            if (out / CHECKPOINT).exists():
                read_checkpoint(out / CHECKPOINT)
            _train(config, out)
            check_same(straight, out)
            failures += 1
    return {"failures": failures}


def _train(config: TrainConfig, out: Path) -> None:
    train(dataclasses.replace(config, out=str(out)), resume=True, progress=False)


@contextlib.contextmanager
def _failing(step: str, number: int, reason: int) -> Iterator[list[int]]:
    """The ``number``-th call of ``step`` in the writing of files fails; it is listed then."""
    place: Any = Path if step == "write_bytes" else os
    plain: Callable[..., Any] = getattr(place, step)
    calls, failed = itertools.count(1), list[int]()

    def call(*arguments: Any) -> Any:
        if next(calls) == number:
            failed.append(number)
            raise OSError(reason, os.strerror(reason), str(arguments[0]))
        return plain(*arguments)

    with mock.patch.object(place, step, call):
        yield failed


@contextlib.contextmanager
def mounted(folder: Path, kibibytes: int) -> Iterator[Callable[[str], None] | None]:
    """A disk of its own of that size at ``folder``, and how to mount it with other options.

    None where this user may not mount one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)]
    try:
        may = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        may = False
    if not may:
        yield None
        return

    def remount(options: str) -> None:
        command = ["mount", "-o", f"remount,{options}", str(folder)]
        subprocess.run(command, check=True, capture_output=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def full(runs: Runs, folder: Path, straight: Path, kibibytes: list[int]) -> dict[str, int] | None:
    """Runs on disks of these sizes, which go on once there is room; None without a disk."""
    stopped = 0
    for size in kibibytes:
        with mounted(folder / f"disk{size}", size) as remount:
            if remount is None:
                return None
            out = folder / f"disk{size}" / "run"
            process = runs.start(out)
            _, errors = process.communicate(timeout=600)
            if process.returncode != 0:
                check_refused(process.returncode, errors)
                stopped += 1
            remount("size=64m")
            runs.end(out)
            check_same(straight, out)
    return {"disks": len(kibibytes), "filled": stopped}


def read_only(runs: Runs, folder: Path, straight: Path) -> dict[str, int] | None:
    """A run that cannot begin, and one that cannot go on, until the disk takes writes again."""
    with mounted(folder / "disk", 65_536) as remount:
        if remount is None:
            return None
        refused = 0
        for out in (folder / "disk" / "new", folder / "disk" / "begun"):
            if out.name == "begun":
                process = runs.start(out)
                while process.poll() is None and not (out / CHECKPOINT).exists():
                    pass
                process.kill()
                process.communicate()
            remount("ro")
            process = runs.start(out)
            _, errors = process.communicate(timeout=600)
            check_refused(process.returncode, errors)
            refused += 1
            remount("rw")
            runs.end(out)
            check_same(straight, out)
    return {"refused": refused}
