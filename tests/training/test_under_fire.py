"""Training goes on bit by bit after whatever happens to it, or says in one line that it cannot."""

import contextlib
import dataclasses
import errno
import itertools
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tqdm.std

from bsconv.experiments.files.checkpoints import CHECKPOINT, read_checkpoint
from bsconv.experiments.training import TrainConfig, train
from helpers.same_runs import check_refused, check_same
from helpers.small_runs import Use, at_a_terminal, config, linear, noise

YEAR = 365 * 24 * 3600.0


@pytest.fixture
def small(use: Use) -> TrainConfig:
    """A run of milliseconds, in this process."""
    use(linear, noise(train=8, test=8))
    return config(batch_size=4)


def resumed(settings: TrainConfig, out: Path) -> None:
    train(dataclasses.replace(settings, out=str(out)), resume=True, progress=False)


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_before_the_commands_are_imported_is_one_line() -> None:
    script = """
import signal, sys

class Interrupting:
    def find_spec(name, path, target=None):
        if name.startswith("bsconv.commands."):
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupting)
import bsconv.__main__
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, b"bsconv: interrupted\n")


# --- disks ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(folder: Path, kibibytes: int) -> Iterator[Callable[[str], None]]:
    """A disk of that size at ``folder``, and how to mount it with other options."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)]
    try:
        may = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        may = False
    if not may:
        pytest.skip("mounting a disk takes root on Linux")

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def failing(step: str, number: int, reason: int, out: Path) -> Iterator[Path]:
    """The ``number``-th call of ``step`` in the writing of files fails; what would lie in ``out``
    after a kill then, half a file too, is copied into the folder that this gives."""
    place: Any = Path if step == "write_bytes" else os
    plain: Callable[..., Any] = getattr(place, step)
    calls, killed = itertools.count(1), out.with_name(f"{out.name}-killed")

    def call(*arguments: Any) -> Any:
        if next(calls) == number:
            shutil.copytree(out, killed)
            for half in killed.glob(".*.tmp") if step == "fsync" else ():
                os.truncate(half, half.stat().st_size // 2)
            raise OSError(reason, os.strerror(reason), str(arguments[0]))
        return plain(*arguments)

    with mock.patch.object(place, step, call):
        yield killed


@pytest.mark.slow
@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EIO])
def test_every_write_may_fail_or_be_killed(tmp_path: Path, small: TrainConfig, reason: int) -> None:
    """Settings, weights, and for both epochs a checkpoint and metrics; each is then resumed."""
    resumed(small, tmp_path / "straight")
    failures = 0
    for step in ("write_bytes", "fsync", "replace"):
        for number in itertools.count(1):
            out = tmp_path / f"{step}-{number}"
            with failing(step, number, reason, out) as killed:
                said = ""
                try:
                    resumed(small, out)
                except OSError as error:
                    said = str(error)
            if not killed.exists():
                break  # there was no such write any more
            assert "\n" not in said
            assert str(out) in said or step == "fsync"  # of a folder, which may fail in silence
            if (out / CHECKPOINT).exists():
                read_checkpoint(out / CHECKPOINT)
            for folder in (out, killed):
                resumed(small, folder)
                check_same(tmp_path / "straight", folder)
                assert not list(folder.glob(".*.tmp"))
            failures += 1
    assert failures == 6 * 4  # written, flushed, their folder flushed, renamed


@pytest.mark.slow
def test_a_disk_that_is_full_and_then_read_only(tmp_path: Path, small: TrainConfig) -> None:
    resumed(small, tmp_path / "straight")
    out = tmp_path / "disk" / "run"
    with mounted(tmp_path / "disk", 8) as remount:
        with pytest.raises(OSError, match="the disk is full"):
            resumed(small, out)
        remount("size=1m")
        resumed(small, out)
        check_same(tmp_path / "straight", out)
        checkpoint = (out / CHECKPOINT).read_bytes()
        (out / "model.safetensors").unlink()
        remount("ro")
        for folder in (out, tmp_path / "disk" / "other"):
            with pytest.raises(OSError, match="Read-only file system"):
                resumed(small, folder)
        assert (out / CHECKPOINT).read_bytes() == checkpoint
        remount("rw")
        resumed(small, out)
        assert (out / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("stream", "code"), [("stdout", 2), ("stderr", 0)])
def test_output_that_goes_nowhere(stream: str, code: int) -> None:
    """A full disk under a log, or no log at all."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    command = [sys.executable, "-m", "bsconv", "models", "cifar_resnet20*"]
    with open("/dev/full", "w") as full:
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        ended = subprocess.run(command, **streams | {stream: full}, text=True, check=False)
    assert ended.returncode == code
    if code:
        check_refused(ended.returncode, ended.stderr)


# --- clocks ---------------------------------------------------------------------------------------


def test_clocks_that_jump(tmp_path, small: TrainConfig, monkeypatch) -> None:
    """Every look at a clock, most of them of progress bars, finds it a year off either way."""
    resumed(small, tmp_path / "straight")
    chance, looks = random.Random(0), itertools.count()

    def wrong(plain: Callable[[], float]) -> Callable[[], float]:
        def clock() -> float:
            next(looks)
            return plain() + chance.uniform(-YEAR, YEAR)

        return clock

    clocks = [(time, "time"), (time, "monotonic"), (time, "perf_counter"), (tqdm.std, "time")]
    drawn = at_a_terminal(monkeypatch)
    with monkeypatch.context() as patch:
        for place, name in clocks:
            patch.setattr(place, name, wrong(getattr(place, name)))
        train(dataclasses.replace(small, out=str(tmp_path / "jumped")))
    assert "epoch 1/" in drawn.getvalue()
    assert next(looks) >= 2 * small.epochs
    check_same(tmp_path / "straight", tmp_path / "jumped")
