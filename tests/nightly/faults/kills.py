"""Signals at random moments of the whole life of training processes."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..runs import Runs, check_same

# in what Python itself says where Ctrl-C comes before it runs this package, no line is of that
OURS = re.compile(r'File "[^"]*bsconv/(__main__|commands|experiments|pytorch)')


def at_random_moments(
    runs: Runs, folder: Path, signals: Sequence[signal.Signals], seed: int, chains: int = 2
) -> dict[str, Any]:
    """Send each of ``signals`` to a process that trains; resume until all runs are over.

    Each of the ``chains`` begins run after run. The moment is drawn over the time that a whole run
    takes, start-up included, for every process, first or resumed; one that is over before is
    not counted. AssertionError where a finished run differs from the one that nobody disturbed, or
    where a process that was asked to stop says more than one line.
    """
    straight = folder / "straight"
    runs.end(straight)

    def undisturbed(number: int) -> float:
        started, out = time.monotonic(), folder / f"undisturbed{number}"
        runs.end(out)
        check_same(straight, out)
        return time.monotonic() - started

    def chain(number: int) -> Counter[str]:
        chance, waiting = random.Random(f"{seed} {number}"), list(signals[number::chains])
        counts, out = Counter[str](), folder / f"run{number}"
        while waiting:
            counts += _until_it_is_over(runs, out, waiting, life, chance)
            check_same(straight, out)
            shutil.rmtree(out)
            counts["runs"] += 1
        return counts

    with ThreadPoolExecutor(chains) as pool:
        life = max(pool.map(undisturbed, range(chains)))  # while the machine does as much as later
        counts = sum(pool.map(chain, range(chains)), Counter[str]())
    finished = counts.pop("runs")
    return {
        "signals": sum(counts.values()),
        "moments": dict(sorted(counts.items())),
        "runs": finished,
        "seconds of a run": round(life, 1),
    }


def _until_it_is_over(
    runs: Runs, out: Path, waiting: list[signal.Signals], life: float, chance: random.Random
) -> Counter[str]:
    """Where in their lives the processes were that got a signal; ``waiting`` shrinks."""
    moments = Counter[str]()
    while True:
        (out / ".lock").unlink(missing_ok=True)  # so that it says that this process has got so far
        leftovers = set(out.glob(".*.tmp"))
        process = runs.start(out)
        try:
            patience = chance.uniform(0, life) if waiting else 600
            _, errors = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            number = waiting.pop()
            process.send_signal(number)
            if len(waiting) % 10 == 0:
                print(f"  {number.name}: {len(waiting)} more in this chain", flush=True)
            printed, errors = process.communicate()
            check_stopped(number, process.returncode, errors)
            half_written = set(out.glob(".*.tmp")) - leftovers
            moments[_moment(runs, out, printed, bool(half_written))] += 1
        else:
            if process.returncode != 0:
                raise AssertionError(f"a run ended by itself in {process.returncode}: {errors}")
            return moments


def _moment(runs: Runs, out: Path, printed: str, writing: bool) -> str:
    if writing:
        return "writing a file"
    if not (out / ".lock").exists():
        return "starting"
    if not printed:
        return "preparing"
    return "after the last epoch" if f"epoch {runs.epochs}:" in printed else "training"


def check_stopped(number: signal.Signals, code: int, errors: str) -> None:
    """AssertionError where a process made more of a signal than to end, with one line at most."""
    said = len(errors.splitlines())
    ends = {
        signal.SIGKILL: [(-9, 0)],
        signal.SIGTERM: [(143, 1), (-15, 0)],  # -15: before or after the training
        signal.SIGINT: [(130, 1), (-2, 0)],
    }
    before = number is signal.SIGINT and errors != "" and not OURS.search(errors)
    if (code, said) not in [*ends[number], (0, 0)] and not before:
        raise AssertionError(f"{number.name} made a process end in {code}, saying: {errors}")
