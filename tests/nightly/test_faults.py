"""Training in processes that are killed at random moments, and what comes of it.

What needs no process is in `tests/training/test_under_fire.py` and `tests/files/`.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.reliability import Section
from helpers.same_runs import check_same

pytestmark = pytest.mark.nightly

EPOCHS = 24
# these decide every bit of a run
SETTINGS = (
    "--model=cifar_resnet20_bsconvs_p1d4", "--dataset=synthetic", "--seed=1", "--train-limit=48",
    "--test-limit=32", "--batch-size=16", "--device=cpu", "--recipe=fast",
)  # fmt: skip
ALONE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "BSCONV_OFFLINE": "1"}
SIGNALS = {
    "kill -9": [signal.SIGKILL] * 100,
    "SIGTERM and Ctrl-C": [signal.SIGTERM, signal.SIGINT] * 10,
}
# how a process may end that gets a signal: its status and how many lines it says
ENDS = {
    signal.SIGKILL: [(-9, 0)],
    signal.SIGTERM: [(143, 1), (-15, 0)],  # -15: before or after the training
    signal.SIGINT: [(130, 1), (-2, 0)],
}
# in what Python itself says where Ctrl-C comes before it runs this package, no line is of that
OURS = re.compile(r'File "[^"]*bsconv/(__main__|commands|experiments|pytorch)')


def start(out: Path) -> subprocess.Popen[str]:
    """Begin the run in ``out``, or resume it, in a process of its own."""
    arguments = [*SETTINGS, "--epochs", str(EPOCHS), "--out", str(out), "--resume"]
    return subprocess.Popen(
        [sys.executable, "-m", "bsconv", "train", *arguments], env={**os.environ, **ALONE},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


@pytest.mark.parametrize("name", SIGNALS)
def test_signals_at_random_moments(tmp_path: Path, name: str, section: Section) -> None:
    """Drawn over the time that a whole run takes, for every process, first or resumed."""
    chance, waiting = random.Random(name), list(SIGNALS[name])
    began = time.monotonic()
    end(start(tmp_path / "straight"))
    life, runs, out = time.monotonic() - began, 0, tmp_path / "run"
    while waiting:
        process = start(out)
        try:
            _, errors = process.communicate(timeout=chance.uniform(0, life))
        except subprocess.TimeoutExpired:
            number = waiting.pop()
            process.send_signal(number)
            _, errors = process.communicate()
            check_stopped(number, process.returncode, errors)
        else:
            assert process.returncode == 0, errors
            check_same(tmp_path / "straight", out)
            shutil.rmtree(out)
            runs += 1
    end(start(out))
    check_same(tmp_path / "straight", out)
    count = len(SIGNALS[name])
    section("Training under fire", f"- {name}, {count} times: {runs} runs finished, all identical")


def check_stopped(number: signal.Signals, code: int, errors: str) -> None:
    """A process made no more of a signal than to end, with one line at most."""
    before = number is signal.SIGINT and errors != "" and not OURS.search(errors)
    ended = (code, len(errors.splitlines()))
    assert before or ended in [*ENDS[number], (0, 0)], f"{number.name}: {code}, saying {errors}"
