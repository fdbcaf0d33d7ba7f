"""Training that is killed, starved, damaged and raced, and what comes of it."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bsconv.experiments.config import TrainConfig
from helpers.reliability import Section
from nightly.faults import clocks, damage, disks, kills, races
from nightly.runs import Runs

pytestmark = pytest.mark.nightly

TITLE = "Training under fire"
KILLS, INTERRUPTIONS = 100, 20
FLIPS, CUTS = 2000, 500
LARGE = "cifar10.npz"  # of all others every bit is changed
KIBIBYTES = [4, 16, 440, 600, 1400]
SHORT = Runs(epochs=4)
# in this process, as it starts over and over
QUICK = TrainConfig(
    "cifar_resnet20_bsconvu",
    "synthetic",
    epochs=2,
    batch_size=8,
    train_limit=16,
    test_limit=8,
    device="cpu",
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("straight") / "run"
    SHORT.end(out)
    return out


PROMISE = """\
A run that is broken off and resumed ends with the same weights, metrics and checkpoint as one that
nobody disturbed, to the last bit. What cannot go on ends in one line on stderr and a status above
0, and what was there before stays as it was. Files with one bit changed or with their end missing
are read as they were written, or refused in one line.
"""


def test_kills(tmp_path: Path, section: Section) -> None:
    found = kills.at_random_moments(Runs(), tmp_path, [signal.SIGKILL] * KILLS, seed=0)
    section(TITLE, PROMISE)
    section(TITLE, f"- `kill -9`, at moments drawn over the life of a process: {stopped(found)}")


def test_interruptions(tmp_path: Path, section: Section) -> None:
    signals = [signal.SIGTERM, signal.SIGINT] * (INTERRUPTIONS // 2)
    found = kills.at_random_moments(Runs(epochs=8), tmp_path, signals, seed=1)
    section(TITLE, f"- SIGTERM and Ctrl-C: {stopped(found)}")


def stopped(found: Mapping[str, Any]) -> str:
    """As "5: 3 training, 2 starting; 2 runs finished, all identical"; the most frequent first."""
    moments = sorted(found["moments"].items(), key=lambda moment: -moment[1])
    counts = ", ".join(f"{count} {moment}" for moment, count in moments)
    return f"{found['signals']}: {counts}; {found['runs']} runs finished, all identical"


def test_failing_writes(tmp_path: Path, section: Section) -> None:
    """Each step of each write, once for a full disk and once for a defective one."""
    found = disks.at_every_write(tmp_path, QUICK)
    section(TITLE, f"- {found['failures']} writes that fail: one line each, then identical")


def test_full_disks(tmp_path: Path, straight: Path, section: Section) -> None:
    found = disks.full(SHORT, tmp_path, straight, KIBIBYTES)
    if found is None:
        pytest.skip("this user may not mount a disk")
    section(TITLE, f"- {found['filled']} of {found['disks']} disks became full: then identical")


def test_read_only_disks(tmp_path: Path, straight: Path, section: Section) -> None:
    if disks.read_only(SHORT, tmp_path, straight) is None:
        pytest.skip("this user may not mount a disk")
    section(TITLE, "- a read-only disk, for a new and a begun run: one line each, then identical")


def test_races(tmp_path: Path, straight: Path, section: Section) -> None:
    races.in_one_folder(SHORT, tmp_path, straight, rounds=3, at_once=4)
    section(TITLE, "- four runs in one folder at once, three times: one trained, three said so")


def test_clocks(tmp_path: Path, section: Section) -> None:
    found = clocks.while_training(tmp_path, QUICK, seed=0)
    section(TITLE, f"- a clock that jumps by up to a year at {found['looks']} looks: identical")


@pytest.mark.parametrize("name", damage.FILES)
def test_damaged_files(tmp_path: Path, name: str, section: Section) -> None:
    flips = FLIPS if name == LARGE else None
    counts = damage.outcomes(name, tmp_path, flips, CUTS, seed=0)
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
    section(TITLE, f"- `{name}`, damaged {sum(counts.values()):,} times: {outcomes}")
