"""Training goes on bit by bit after whatever happens to it, or says in one line that it cannot."""

import dataclasses
import json
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from bsconv.__main__ import main
from bsconv.experiments.files.checkpoints import CHECKPOINT
from bsconv.experiments.training import TrainConfig, train
from helpers.small_runs import config, linear, noise, use
from nightly.faults import clocks, damage, disks, kills, races
from nightly.runs import Runs, check_refused, check_same, equal

SHORT = Runs(epochs=4)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """A run of milliseconds, in this process."""
    use(monkeypatch, linear, noise(train=8, test=8))
    return config(batch_size=4)


def resumed(settings: TrainConfig, out: Path) -> None:
    train(dataclasses.replace(settings, out=str(out)), resume=True, progress=False)


# --- signals, several at once ---------------------------------------------------------------------


@pytest.mark.nightly
def test_signals_at_random_moments(tmp_path: Path) -> None:
    signals = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    figures = kills.at_random_moments(SHORT, tmp_path, signals, seed=2, chains=1)
    assert figures["signals"] == 3
    assert figures["runs"] >= 1


@pytest.mark.nightly
def test_several_in_one_folder(tmp_path: Path) -> None:
    SHORT.end(tmp_path / "straight")
    figures = races.in_one_folder(SHORT, tmp_path, tmp_path / "straight", rounds=1, at_once=3)
    assert figures["processes"] == 3


@pytest.mark.slow
def test_ctrl_c_before_the_commands_are_imported_is_one_line() -> None:
    script = """
import builtins, signal, sys
plain = builtins.__import__

def importing(name, *arguments):
    if "commands" in name:
        signal.raise_signal(signal.SIGINT)
    return plain(name, *arguments)

builtins.__import__ = importing
import bsconv.__main__
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, "bsconv: interrupted\n")


# --- disks ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_write_may_fail(tmp_path: Path, small: TrainConfig) -> None:
    figures = disks.at_every_write(tmp_path, small)
    # settings, weights, and for both epochs a checkpoint and metrics, for each of two reasons:
    # written, flushed, their folder flushed, renamed
    assert figures["failures"] == 2 * 6 * 4


@pytest.mark.slow
def test_a_disk_that_is_full(tmp_path: Path, small: TrainConfig) -> None:
    resumed(small, tmp_path / "straight")
    with disks.mounted(tmp_path / "disk", 8) as remount:
        if remount is None:
            pytest.skip("mounting a small disk takes root on Linux")
        out = tmp_path / "disk" / "run"
        with pytest.raises(OSError, match="the disk is full"):
            resumed(small, out)
        remount("size=1m")
        resumed(small, out)
        check_same(tmp_path / "straight", out)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to(tmp_path: Path, small: TrainConfig) -> None:
    out = tmp_path / "disk" / "run"
    with disks.mounted(tmp_path / "disk", 1024) as remount:
        if remount is None:
            pytest.skip("mounting a disk takes root on Linux")
        resumed(small, out)
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
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_that_goes_nowhere(stream: str) -> None:
    """A full disk under a log, or no log at all."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    command = [sys.executable, "-m", "bsconv", "models", "cifar_resnet20*"]
    with open("/dev/full", "w") as full:
        other = "stderr" if stream == "stdout" else "stdout"
        streams: dict[str, Any] = {stream: full, other: subprocess.PIPE}
        ended = subprocess.run(command, **streams, text=True, check=False)
    assert ended.returncode == (2 if stream == "stdout" else 0)
    if stream == "stdout":
        check_refused(ended.returncode, ended.stderr)


@pytest.mark.slow
def test_stdout_that_is_closed() -> None:
    command = f"{sys.executable} -m bsconv models 'cifar_resnet20*' >&-"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", damage.FILES)
def test_damaged_files_read_as_written_or_not_at_all(tmp_path: Path, name: str) -> None:
    flips, cuts = 200, 60
    counts = damage.outcomes(name, tmp_path, flips, cuts, seed=1)
    assert counts["refused"] > (flips + cuts) / 2


@pytest.mark.parametrize("name", ["checkpoint.pt", "weights.pt"])
def test_parts_marked_as_directories_are_refused(tmp_path: Path, name: str) -> None:
    """For these torch reads no numbers, but what lies in memory, and the checksums are right."""
    write, read = damage.FILES[name]
    path = tmp_path / name
    write(path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        attributes = [
            content.index(part.filename.encode(), archive.start_dir) - 8
            for part in archive.infolist()
        ]
    assert len(attributes) > 8
    for position in attributes:
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name} .*marked as a directory"):
            read(path)


def test_old_files_without_a_checksum_are_read(tmp_path: Path) -> None:
    about = {"num_classes": 3, "config": dataclasses.asdict(TrainConfig())}
    path = tmp_path / "model.safetensors"
    save_file(damage.network().state_dict(), path, {"bsconv": json.dumps(about)})
    damage.trained(tmp_path / "new.safetensors")
    old, new = (damage.read_trained_parts(each) for each in (path, tmp_path / "new.safetensors"))
    assert equal(old, new)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_settings_and_metrics_with_changed_bits(
    tmp_path: Path, small: TrainConfig, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that is over gives what is in its checkpoint, or says in one line what is wrong."""
    out = tmp_path / "run"
    resumed(small, out)
    content = (out / name).read_bytes()
    for position in range(0, len(content), 3):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        (out / name).write_bytes(changed)
        code = main(["train", "--out", str(out), "--resume"])
        printed, said = capsys.readouterr()
        if code == 0:
            assert "is finished already" in printed
        else:
            check_refused(code, said)


# --- clocks ---------------------------------------------------------------------------------------


def test_clocks_that_jump(tmp_path: Path, small: TrainConfig) -> None:
    assert clocks.while_training(tmp_path, small, seed=0)["looks"] >= 2 * small.epochs
