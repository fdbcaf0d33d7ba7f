"""Training goes on bit by bit after whatever happens to it, or says in one line that it cannot."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bsconv.__main__ import main
from bsconv.experiments.data import ImageDataset
from bsconv.experiments.files.checkpoints import CHECKPOINT, read_checkpoint
from bsconv.experiments.training import TrainConfig, _inputs, train
from bsconv.experiments.training import _run_folder as _runs
from bsconv.experiments.training import _train as training
from nightly.faults import clocks, damage, disks, kills, races
from nightly.runs import PLAIN, Runs, check_refused, check_same, equal

SHORT = Runs(PLAIN, epochs=4)


def noise(classes: int = 2, count: int = 8) -> ImageDataset:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 3, 4, 4), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % classes
    names = tuple(f"class {number}" for number in range(classes))
    return ImageDataset("noise", names, images, labels, images, labels)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """A run of milliseconds, in this process."""
    net = lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(48, classes))  # noqa: E731
    monkeypatch.setattr(_inputs, "build_model", lambda name, classes, **_: net(classes))
    monkeypatch.setattr(_inputs, "load_dataset", lambda *_, **__: noise())
    return TrainConfig("cifar_resnet20", epochs=3, batch_size=4, device="cpu")


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of ``SHORT`` that nobody disturbed."""
    out = tmp_path_factory.mktemp("straight") / "run"
    SHORT.end(out)
    return out


def resumed(config: TrainConfig, out: Path) -> None:
    train(dataclasses.replace(config, out=str(out)), resume=True, progress=False)


# --- signals --------------------------------------------------------------------------------------


def test_signals_at_random_moments(tmp_path: Path) -> None:
    signals = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
    figures = kills.at_random_moments(SHORT, tmp_path, signals, seed=2, chains=1)
    assert figures["signals"] == 3
    assert figures["runs"] >= 1


@pytest.mark.parametrize(
    ("number", "code", "errors"),
    [
        (signal.SIGKILL, 0, ""),  # it was over by then
        (signal.SIGKILL, -9, ""),
        (signal.SIGTERM, -15, ""),
        (signal.SIGTERM, 143, "bsconv train: interrupted; go on with: ..."),
        (signal.SIGINT, 130, "bsconv: interrupted"),
        (signal.SIGINT, 1, 'Traceback ...:\n  File "<frozen site>"\nKeyboardInterrupt'),
    ],
)
def test_ends_that_a_signal_may_have(number: signal.Signals, code: int, errors: str) -> None:
    kills.check_stopped(number, code, errors)


@pytest.mark.parametrize(
    ("number", "code", "errors"),
    [
        (signal.SIGKILL, 1, "bsconv train: ..."),
        (signal.SIGTERM, 143, "one line\nand another"),
        (signal.SIGINT, 1, 'Traceback ...:\n  File "/x/bsconv/experiments/data.py"\nKeyboard...'),
    ],
)
def test_ends_that_a_signal_may_not_have(number: signal.Signals, code: int, errors: str) -> None:
    with pytest.raises(AssertionError, match=number.name):
        kills.check_stopped(number, code, errors)


# where each phase of a run begins
PHASES: dict[str, tuple[Any, str]] = {
    "opening the folder": (_runs, "_state"),
    "looking at the model": (training, "check_model"),
    "reading the data": (training, "find_dataset"),
    "making the model": (training, "make_model"),
    "trying the model": (training, "check_fit"),
    "choosing how to compute": (training, "choose_execution"),
    "making the optimiser": (training, "make_optimizer"),
    "writing the settings": (_runs, "_write_text"),
    "training": (training, "augment"),
    "testing": (training, "evaluate"),
    "writing the checkpoint": (_runs, "write_checkpoint"),
    "writing the weights": (_runs, "write_trained"),
}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_in_each_phase(
    tmp_path: Path,
    small: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    phase: str,
    number: signal.Signals,
    code: int,
) -> None:
    place, name = PHASES[phase]
    plain = getattr(place, name)

    def interrupted(*arguments: Any, **settings: Any) -> Any:
        monkeypatch.setattr(place, name, plain)
        signal.raise_signal(number)
        return plain(*arguments, **settings)

    out = tmp_path / "run"
    monkeypatch.setattr(place, name, interrupted)
    command = ["train", "--model", small.model, "--epochs", "3", "--batch-size", "4"]
    assert main([*command, "--device", "cpu", "--out", str(out)]) == code
    said = capsys.readouterr().err
    assert said.startswith("bsconv train: interrupted; ")
    check_refused(code, said)
    resumed(small, out)
    resumed(small, tmp_path / "straight")
    check_same(tmp_path / "straight", out)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signals here")
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


def test_every_write_may_fail(tmp_path: Path, small: TrainConfig) -> None:
    figures = disks.at_every_write(tmp_path, small)
    # settings, weights, and for each of 3 epochs a checkpoint and metrics, for each of two reasons:
    # opened, flushed, their folder flushed, renamed
    assert figures["failures"] == 2 * 8 * 4


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


def test_stdout_that_is_closed() -> None:
    command = f"{sys.executable} -m bsconv models 'cifar_resnet20*' >&-"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", damage.FILES)
def test_damaged_files_read_as_written_or_not_at_all(tmp_path: Path, name: str) -> None:
    flips, cuts = (30, 10) if name.endswith(".pt2") else (200, 60)
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


def test_every_bit_is_changed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[bytes] = set()

    def read(path: Path) -> None:
        seen.add(path.read_bytes())

    write = lambda path: path.write_bytes(b"abc")  # noqa: E731
    monkeypatch.setitem(damage.FILES, "text", (write, read))
    assert damage.outcomes("text", tmp_path, None, 0, seed=0) == {"read as written": 24}
    assert len(seen) == 1 + 24


def test_a_change_that_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        damage.FILES,
        "text",
        (lambda path: path.write_bytes(b"abc"), lambda path: path.read_bytes()),
    )
    with pytest.raises(AssertionError, match="text reads as another"):
        damage.outcomes("text", tmp_path, 5, 0, seed=0)


def test_old_files_without_a_checksum_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

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


# --- several at once, clocks ----------------------------------------------------------------------


def test_several_in_one_folder(tmp_path: Path, straight: Path) -> None:
    figures = races.in_one_folder(SHORT, tmp_path, straight, rounds=1, at_once=3)
    assert figures["processes"] == 3


def test_clocks_that_jump(tmp_path: Path, small: TrainConfig) -> None:
    assert clocks.while_training(tmp_path, small, seed=0)["looks"] >= 2 * small.epochs


def test_files_of_the_future(tmp_path: Path, small: TrainConfig) -> None:
    """When a file was written does not count."""
    resumed(small, tmp_path / "straight")
    out = tmp_path / "run"
    stopped_in_epoch_2(small, out)
    for number, path in enumerate(sorted(out.iterdir())):
        when = 0 if number % 2 else 2**33
        os.utime(path, (when, when))
    resumed(small, out)
    check_same(tmp_path / "straight", out)


def stopped_in_epoch_2(config: TrainConfig, out: Path) -> None:
    plain, calls = training.evaluate, iter((1, 2))

    def evaluate(*arguments: Any, **settings: Any) -> float:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return plain(*arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "evaluate", evaluate)
        with pytest.raises(KeyboardInterrupt):
            resumed(config, out)


# --- data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (noise(classes=3), "noise has changed since the run in"),
        (noise(count=12), "noise has changed since the run in"),
        (
            dataclasses.replace(noise(), train_labels=torch.arange(8)),
            "has changed since|must be in",
        ),
        (dataclasses.replace(noise(), classes=("a", "b")), "noise has changed since the run in"),
    ],
)
def test_a_run_does_not_go_on_with_other_data(
    tmp_path: Path,
    small: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: ImageDataset,
    message: str,
) -> None:
    out = tmp_path / "run"
    stopped_in_epoch_2(small, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(_inputs, "load_dataset", lambda *_, **__: changed)
        code = main(["train", "--out", str(out), "--resume"])
    said = capsys.readouterr().err
    check_refused(code, said)
    assert message.split("|")[0] in said
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    resumed(small, out)
    resumed(small, tmp_path / "straight")
    check_same(tmp_path / "straight", out)


# --- the comparison itself ------------------------------------------------------------------------


def test_runs_that_differ_are_told_apart(tmp_path: Path, small: TrainConfig) -> None:
    resumed(small, tmp_path / "one")
    for name in ("model.safetensors", "metrics.jsonl"):
        other = tmp_path / name
        shutil.copytree(tmp_path / "one", other)
        content = (other / name).read_bytes()
        (other / name).write_bytes(content.replace(b"1", b"2"))
        with pytest.raises(AssertionError, match=name):
            check_same(tmp_path / "one", other)
    resumed(dataclasses.replace(small, seed=1), tmp_path / "other")
    assert not equal(*(read_checkpoint(tmp_path / name / CHECKPOINT) for name in ("one", "other")))


@pytest.mark.parametrize(
    ("code", "errors"),
    [(0, "bsconv: a line"), (2, ""), (2, "bsconv: one\ntwo"), (1, "Traceback"), (-9, "bsconv: a")],
)
def test_what_is_no_clear_line(code: int, errors: str) -> None:
    with pytest.raises(AssertionError, match="not one clear line"):
        check_refused(code, errors)
