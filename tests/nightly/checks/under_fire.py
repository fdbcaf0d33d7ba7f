"""Training that is killed, starved, damaged and raced, and what comes of it."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bsconv.experiments.config import TrainConfig

from ..faults import clocks, damage, disks, kills, races
from ..runs import MEASURING, PLAIN, Runs

TITLE = "Training under fire"
KILLS, INTERRUPTIONS = 100, 20
FLIPS, CUTS = 2000, 500
SLOW_TO_READ = ("network.pt2",)  # a twentieth of these
LARGE = ("cifar10.npz",)  # of all others every bit is changed
KIBIBYTES = (4, 16, 440, 600, 1400)
# in this process, as it starts over and over
QUICK = TrainConfig(
    *("cifar_resnet20_bsconvu", "synthetic"),
    **{"epochs": 2, "batch_size": 8, "train_limit": 16, "test_limit": 8, "device": "cpu"},  # type: ignore[arg-type]
)


def run() -> dict[str, Any]:
    """Raises AssertionError with the first outcome that is neither identical nor a clear error."""
    short = Runs(PLAIN, epochs=4)
    with tempfile.TemporaryDirectory(prefix="under-fire-") as name:
        folder = Path(name)
        straight = _new(folder, "straight") / "run"
        short.end(straight)
        stopping = [signal.SIGTERM, signal.SIGINT] * (INTERRUPTIONS // 2)
        return {
            "kills": kills.at_random_moments(
                Runs(MEASURING), _new(folder, "kills"), [signal.SIGKILL] * KILLS, seed=0
            ),
            "interruptions": kills.at_random_moments(
                Runs(PLAIN, epochs=8), _new(folder, "interruptions"), stopping, seed=1
            ),
            "failing writes": disks.at_every_write(_new(folder, "writes"), QUICK),
            "full disks": disks.full(short, _new(folder, "full"), straight, list(KIBIBYTES)),
            "read-only disks": disks.read_only(short, _new(folder, "read-only"), straight),
            "races": races.in_one_folder(short, _new(folder, "races"), straight, 3, 4),
            "clocks": clocks.while_training(_new(folder, "clocks"), QUICK, seed=0),
            "damage": {
                name: damage.outcomes(name, _new(folder, f"damaged-{name}"), *_tries(name), seed=0)
                for name in damage.FILES
            },
        }


def _new(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def _tries(name: str) -> tuple[int | None, int]:
    if name in SLOW_TO_READ:
        return FLIPS // 20, CUTS // 20
    return FLIPS if name in LARGE else None, CUTS


def section(figures: Mapping[str, Any]) -> str:
    """What happened, how often, and that nothing was lost."""
    killed, stopped = figures["kills"], figures["interruptions"]
    full, read_only, races = (figures[name] for name in ("full disks", "read-only disks", "races"))
    rows = [
        ("`kill -9`", f"{killed['signals']}: {_moments(killed)}", _identical(killed)),
        ("SIGTERM and Ctrl-C", f"{stopped['signals']}: {_moments(stopped)}", _identical(stopped)),
        (
            "writes that fail",
            f"{figures['failing writes']['failures']}: each step of each write, once for a full"
            " disk and once for a defective one",
            "one line each, then identical",
        ),
        (
            "full disks",
            "not tried: this user may not mount one" if full is None else f"{full['disks']}",
            "" if full is None else f"{full['filled']} became full: one line, then identical",
        ),
        (
            "read-only disks",
            "not tried: this user may not mount one"
            if read_only is None
            else "a new and a begun run",
            "" if read_only is None else "one line each, then identical",
        ),
        (
            "runs in one folder at once",
            f"{races['rounds']} times {races['processes'] // races['rounds']}",
            f"one trained, {races['refused']} said so in one line, identical",
        ),
        (
            "clocks that jump by up to a year",
            f"{figures['clocks']['looks']} looks at a clock in one run",
            "identical",
        ),
    ]
    lines = [
        "A run that is broken off and resumed ends with the same weights, metrics and checkpoint as"
        " one that nobody disturbed, to the last bit. Of every process the moment was drawn over"
        " the whole of its life. What cannot go on ends in one line on stderr and a status above"
        " 0, and what was there before stays as it was.",
        "",
        "| what happened | how often | what came of it |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "Files with one bit changed, or with their end missing. Of files of a few kilobytes every"
        f" bit was changed once, of {_listed(LARGE + SLOW_TO_READ)} bits drawn at random. None was"
        " read as anything else than what was written:",
        "",
        "| file | tried | refused in one line | read as written |",
        "|---|---|---|---|",
    ]
    for name, counts in figures["damage"].items():
        refused, same = counts.get("refused", 0), counts.get("read as written", 0)
        lines.append(f"| `{name}` | {refused + same:,} | {refused:,} | {same:,} |")
    lines += [
        "",
        "Weights of others in the safetensors format, in files of torch before 1.6 and in ONNX have"
        " no checksum: there, a changed bit of a weight is another weight. Labels out of range,"
        " wrong numbers of classes, NaN, and data sets that are empty or have changed since a run"
        " began are refused in one line, see `tests/training/test_under_fire.py`,"
        " `tests/training/test_training.py` and `tests/data/test_data.py`.",
    ]
    return "\n".join(lines)


def _moments(figures: Mapping[str, Any]) -> str:
    """As "3 training, 2 starting"; the most frequent first."""
    moments = sorted(figures["moments"].items(), key=lambda moment: -moment[1])
    return ", ".join(f"{count} {moment}" for moment, count in moments)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _identical(figures: Mapping[str, Any]) -> str:
    return f"{figures['runs']} runs finished, all identical"
